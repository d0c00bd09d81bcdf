"""Whether the installed vLLM computes with weights as they are quantised: by its own word, and what is missing else.

Asked after vLLM was imported and before it loads anything. What only a kernel knows (group sizes, shapes) comes from
vLLM while it loads, as a failure of class `precision`.
"""

import inspect
from typing import Any

from orchestrator.footprint import quantization
from orchestrator.wire import FailureKind, Model, Precision
from workers.stage import StageFailure

NEEDS = {
    "gptq": "4 or 8 bits, symmetric, and a GPU of compute capability 6.0; on a CPU 4 bits",
    "awq": "4 bits and a GPU of compute capability 7.5, or a CPU",
    "fp8": "a GPU of compute capability 8.9, or 7.5 to keep the weights alone in FP8; or a CPU with AMX and blocks",
    "compressed-tensors": "a GPU of compute capability 7.0 (8.9 for FP8 arithmetic); on a CPU 8-bit integers",
    "bitsandbytes": "a GPU and vllm-bnb-plugin, where bitsandbytes lives since vLLM 0.28",
    "mxfp4": "a GPU of compute capability 8.0",
    "modelopt": "a GPU of compute capability 8.0",
}
"""What a way of quantising needs, for people. Whether it is there is vLLM's to say."""

OTHER = "Choose a worker that has it, or submit the unquantised model."


def refuse_unsupported(model: Model, config: dict[str, Any], *, dtype: str) -> None:
    """Stop where vLLM says that it has no such quantisation, that this device cannot compute it, or not in `dtype`.

    Raises:
        StageFailure: PRECISION, with what it needs.
    """
    section = quantization(config)
    method = str(section.get("quant_method") or "").lower()
    if not method and model.precision in (Precision.FOUR_BIT, Precision.EIGHT_BIT):
        method = "bitsandbytes"
    if not method:
        return

    import torch
    import vllm
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS, get_quantization_config
    from vllm.platforms import current_platform
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    how = f"Model {model.name} is quantised with {method[:40]}"
    if not section:
        how = f"Precision {model.precision} is made with {method}"
    needs = f" It needs {NEEDS[method]}." if method in NEEDS else ""
    if method not in QUANTIZATION_METHODS:
        # vLLM reads some layouts under another name than they give themselves.
        schemes = map(get_quantization_config, QUANTIZATION_METHODS)
        read_as = (scheme.override_quantization_method(section, None) for scheme in schemes)
        method = next((str(name) for name in read_as if name), method)
    known = method in QUANTIZATION_METHODS
    listed = current_platform.supported_quantization
    if not known or (listed and method not in listed):
        where = f" for the device {current_platform.device_name}" if known else ""
        raise _refused(f"{how}, which vLLM {vllm.__version__} does not have{where}.{needs} {OTHER}")
    scheme = get_quantization_config(method)
    capability = current_platform.get_device_capability()
    least = int(_ask(scheme, "get_min_capability"))
    if capability is not None and capability.to_int() < least:
        raise _refused(
            f"{how}, which takes a GPU of compute capability {least // 10}.{least % 10}; this worker's has "
            f"{capability.as_version_str()}.{needs} {OTHER}"
        )
    if current_platform.is_cpu() and _has_fp8(section):
        if not section.get("weight_block_size"):
            raise _refused(f"{how} to FP8, which vLLM computes on a CPU only in blocks (weight_block_size). {OTHER}")
        if not torch.cpu._is_amx_tile_supported():  # vLLM's kernels ask the same
            raise _refused(f"{how} to FP8, which takes a CPU with AMX; this worker's has none.{needs} {OTHER}")
    dtypes = [str(dtype).removeprefix("torch.") for dtype in _ask(scheme, "get_supported_act_dtypes")]
    if dtype not in dtypes:
        raise _refused(f"{how}, with which vLLM computes in {' or '.join(dtypes)}, not in {dtype}. Choose one of them.")


def _ask(scheme: Any, name: str) -> Any:
    """What a class of vLLM answers; some of them forgot to make these methods class methods."""
    method = getattr(scheme, name)
    return method() if inspect.ismethod(method) else method(scheme)


def _has_fp8(section: dict[str, Any]) -> bool:
    groups = section.get("config_groups")
    schemes = [group.get("weights") for group in groups.values()] if isinstance(groups, dict) else []
    return section.get("quant_method") in ("fp8", "fbgemm_fp8") or any(
        isinstance(scheme, dict) and scheme.get("type") == "float" and scheme.get("num_bits") == 8 for scheme in schemes
    )


def _refused(sentence: str) -> StageFailure:
    return StageFailure(FailureKind.PRECISION, sentence)
