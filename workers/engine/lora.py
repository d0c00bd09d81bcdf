"""An adapter given to an engine: to vLLM, and seen to change its answers before anything is asked of it; to peft.

vLLM ignores what an adapter holds for modules that it knows under another name, and then answers as the base model.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from orchestrator.wire import FailureKind, Model
from workers.engine.adapter import MERGE, Adapter, read_adapter_config
from workers.stage import StageFailure

PROBE_TOKENS, PROBE_LOGPROBS = 8, 5

PEFT_SETTINGS = ("r", "lora_alpha", "fan_in_fan_out", "use_rslora", "rank_pattern", "alpha_pattern", "task_type")
"""What of an adapter's config is given to peft: what its tensors mean. The rest changes the base, names modules to
import, or chooses the changed ones by regular expressions, where the tensors say it themselves."""


def load(engine: Any, model: Model, adapter: Adapter) -> Any:
    """The `LoRARequest` that requests are sent with. `engine` is vLLM's `LLMEngine`, not busy.

    Raises:
        StageFailure: vLLM cannot apply the adapter, or its answers stay the base model's.
    """
    from vllm.lora.request import LoRARequest

    request = LoRARequest("adapter", 1, str(adapter.folder.absolute()))
    try:
        engine.add_lora(request)
    except ValueError as error:
        raise StageFailure(
            FailureKind.ARCHITECTURE, f"vLLM cannot apply the adapter {model.name}: {_first_line(error)} {MERGE}"
        ) from error
    if _probe(engine, None) == _probe(engine, request):
        raise StageFailure(
            FailureKind.ARCHITECTURE,
            f"With the adapter {model.name} vLLM answers as {model.base_name} does without it: it applies none of the "
            f"adapter's modules, or they change nothing. {MERGE}",
        )
    return request


def require_peft(model: Model) -> None:
    """Stop where transformers has nothing to apply an adapter with.

    Raises:
        StageFailure: peft is not installed here.
    """
    if find_spec("peft") is None:
        raise StageFailure(
            FailureKind.ARCHITECTURE,
            f"Model {model.name} is an adapter, which transformers applies with peft, and this worker's environment "
            "does not have it. Install peft there, choose the vllm engine, or submit the merged weights.",
        )


def wrap(whole: Any, model: Model, adapter: Adapter) -> Any:
    """The base model of transformers with the adapter applied to it.

    Raises:
        StageFailure: peft does not find what the adapter changes.
    """
    peft: Any = import_module("peft")
    given = read_adapter_config(model, adapter.folder)
    settings = {name: given[name] for name in PEFT_SETTINGS if name in given}
    config = peft.LoraConfig(**settings, target_modules=list(adapter.names))
    try:
        return peft.PeftModel.from_pretrained(whole, str(adapter.folder), config=config)
    except ValueError as error:
        raise StageFailure(
            FailureKind.ARCHITECTURE, f"peft cannot apply the adapter {model.name}: {_first_line(error)} {MERGE}"
        ) from error


def _probe(engine: Any, request: Any) -> dict[int, float]:
    """The likeliest next tokens after a few that are spread over the vocabulary, with their log-probabilities."""
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input

    size = int(engine.model_config.get_vocab_size())
    prompt = [size * place // (PROBE_TOKENS + 1) for place in range(1, PROBE_TOKENS + 1)]
    parameters = SamplingParams(temperature=0, max_tokens=1, logprobs=PROBE_LOGPROBS, detokenize=False)
    engine.add_request("probe", tokens_input(prompt), parameters, lora_request=request)
    found: dict[int, float] = {}
    while engine.has_unfinished_requests():
        for output in engine.step():
            found = {token: entry.logprob for token, entry in output.outputs[0].logprobs[0].items()}
    return found


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    return text if text.endswith(".") else text + "."
