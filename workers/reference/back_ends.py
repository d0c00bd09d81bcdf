"""With which arguments lm-eval's back ends are started: as its command line would, but never with code of the model.

Pure. On a CPU vLLM is given what Evalyard gives it, or it would compile for half a minute and take half the memory.
"""

from dataclasses import dataclass
from typing import Any

from orchestrator.wire import EngineFamily
from workers.reference.records import BackEnd, ReferenceWork

FAMILIES: dict[BackEnd, EngineFamily] = {"vllm": EngineFamily.VLLM, "hf": EngineFamily.TRANSFORMERS}
"""The engine whose package a back end needs."""

NEVER = ("trust_remote_code", "pretrained")
"""What `model_args` may not change."""


@dataclass(frozen=True)
class BackEndArguments:
    model_args: dict[str, Any]
    batch_size: int | str
    environment: dict[str, str]
    """Set before the engine is imported, where the name is not set already."""


def arguments(work: ReferenceWork, *, device_type: str) -> BackEndArguments:
    """Arguments of lm-eval's model class, its batch size, and the environment of its engine."""
    common: dict[str, Any] = {"dtype": work.dtype}
    given = {name: value for name, value in work.model_args.items() if name not in NEVER}
    fixed = {"pretrained": work.model_folder, "trust_remote_code": False}
    if work.back_end == "hf":
        common |= {"use_safetensors": True, "device": device_type}
        if work.context_limit:
            common["max_length"] = work.context_limit
        return BackEndArguments(common | given | fixed, work.batch_size or 1, {})
    common["load_format"] = "safetensors"
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if work.context_limit:
        common["max_model_len"] = work.context_limit
    if device_type == "cpu":
        common |= {"enforce_eager": True, "max_num_seqs": 64}
        environment |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "TORCHDYNAMO_DISABLE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "2",
        }
    return BackEndArguments(common | given | fixed, work.batch_size or "auto", environment)
