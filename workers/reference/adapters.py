"""How lm-eval's back ends are given a LoRA adapter: on its base model, as Evalyard's own engines apply it."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchestrator.wire import FailureKind, Model
from workers.engine.adapter import read_adapter
from workers.engine.vllm_settings import lora_arguments
from workers.engine.weights import read_all_shapes
from workers.models.folders import tokenizer_folder, whole_folder
from workers.reference.records import BackEnd
from workers.stage import StageFailure


def adapter_arguments(model: Model, folder: Path, back_end: BackEnd, *, on_cpu: bool) -> dict[str, Any]:
    """Arguments of lm-eval's model class beside those of the base model, which is its `pretrained`.

    lm-eval's `vllm` class hands what it does not know on to vLLM, which is told the adapter's rank and modules as
    Evalyard tells it: with its own defaults it stops at rank 16, and wraps the output layer.

    Raises:
        StageFailure: the adapter is damaged, or more than LoRA, or of another base; or the package that applies it is
            not there.
    """
    adapter = read_adapter(model, folder, read_all_shapes(whole_folder(model, folder)))
    own = tokenizer_folder(model, folder)
    arguments: dict[str, Any] = {"tokenizer": str(own)} if own == folder else {}
    if back_end == "vllm":
        settings = lora_arguments(model, adapter, on_cpu=on_cpu)
        del settings["enable_lora"]  # lm-eval's class says it itself
        return arguments | settings | {"lora_local_path": str(folder.absolute())}
    if find_spec("peft") is None:
        raise StageFailure(
            FailureKind.ARCHITECTURE,
            f"Model {model.name} is an adapter, which lm-eval's hf back end applies with peft, and this environment "
            "does not have it. Install peft, or compare with --against lm-eval-vllm.",
        )
    return arguments | {"peft": str(folder.absolute())}
