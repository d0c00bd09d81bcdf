"""How large a model is in an engine's memory, and the fewest GPUs that hold it. More GPUs than that are for slices.

Pure: decides from the config, the bytes of the weights and what the host says of its devices.
"""

from typing import Any

from orchestrator.wire import EngineInfo, FailureKind, Model, Precision
from workers.engine.weights import text_config
from workers.stage import StageFailure

GIB = 1 << 30

USUAL_SHARE = 0.92
"""Of a GPU's memory, what a vLLM engine takes when it is told nothing."""

WORKSPACE = 2 * GIB
"""Of each GPU, what activations, logits and CUDA graphs take: about what vLLM sets aside for a mid-sized model."""

CACHE_SEQUENCES = 16
"""Longest requests that an engine should hold at a time, so that its work does not come in single file."""

WIDTHS = {"float32": 4, "float": 4, "float64": 8, "bfloat16": 2, "float16": 2, "half": 2}
"""Bytes of a weight by the config's name for its type."""

SHRUNK = {Precision.EIGHT_BIT: 0.6, Precision.FOUR_BIT: 0.35}
"""What quantising on the fly leaves of 16-bit weights; the embeddings stay as they are."""


def head_size(config: dict[str, Any]) -> int | None:
    """Width of an attention head, or None where the config does not tell."""
    text = text_config(config)
    if isinstance(size := text.get("head_dim"), int):
        return size
    hidden, heads = text.get("hidden_size"), text.get("num_attention_heads")
    return hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads else None


def cache_bytes_per_token(model: Model, config: dict[str, Any]) -> int:
    """Keys and values of all layers; more than a model with windows or compressed keys needs."""
    text = text_config(config)
    layers = int(text.get("num_hidden_layers") or 32)
    heads = int(text.get("num_key_value_heads") or text.get("num_attention_heads") or 32)
    return 2 * layers * heads * (head_size(config) or 128) * (4 if model.precision is Precision.FLOAT32 else 2)


def loaded_bytes(model: Model, config: dict[str, Any], stored_bytes: int) -> float:
    """Bytes of the weights as loaded: those of another type than stored grow or shrink, quantised ones stay."""
    if quantization(config):
        return stored_bytes
    stored = WIDTHS.get(stored_dtype(config), 2)
    if model.precision in SHRUNK:
        return stored_bytes / stored * 2 * SHRUNK[model.precision]
    return stored_bytes / stored * (4 if model.precision is Precision.FLOAT32 else 2)


def stored_dtype(config: dict[str, Any]) -> str:
    """The type that the config says the weights were saved in, or an empty string."""
    for part in (config, text_config(config)):
        if named := part.get("dtype") or part.get("torch_dtype"):
            return str(named).removeprefix("torch.")
    return ""


def quantization(config: dict[str, Any]) -> dict[str, Any]:
    """What the config says of how its weights are quantised; empty when they are not."""
    for part in (config, text_config(config)):
        for name in ("quantization_config", "compression_config"):
            if isinstance(found := part.get(name), dict):
                return found
    return {}


def tensor_parallel_size(
    model: Model,
    config: dict[str, Any],
    *,
    info: EngineInfo,
    weight_bytes: int,
    context: int | None,
    share: float = USUAL_SHARE,
) -> int:
    """The smallest power of two of this host's GPUs that holds weights and some cache, and divides the heads.

    1 where the devices' memory is not known. `context` is the engine's context length in tokens.

    Raises:
        StageFailure: the weights alone are larger than what the GPUs that may share them hold.
    """
    if info.device_type == "cpu" or not info.memory_bytes:
        return 1
    weights = loaded_bytes(model, config, weight_bytes)
    cache = CACHE_SEQUENCES * (context or 4096) * cache_bytes_per_token(model, config)
    room = share * info.memory_bytes - WORKSPACE
    sizes = [size for size in _powers(info.device_count) if _divides(size, config)]
    for size in sizes:
        if weights + cache <= room * size:
            return size
    if weights <= room * sizes[-1]:
        return sizes[-1]
    held = f"{sizes[-1]} × {info.device}" if sizes[-1] > 1 else info.device
    more = "" if sizes[-1] == info.device_count else f" (no more of its {info.device_count} GPUs can share the heads)"
    raise StageFailure(
        FailureKind.OUT_OF_MEMORY,
        f"Model {model.name} has {weights / GIB:.0f} GiB of weights, more than {held} of "
        f"{info.memory_bytes / GIB:.0f} GiB holds beside the work{more}. It needs a worker with more or larger GPUs, "
        "or a smaller precision.",
        lasting=True,
    )


def _powers(count: int) -> list[int]:
    return [1 << exponent for exponent in range(max(1, count).bit_length())]


def _divides(size: int, config: dict[str, Any]) -> bool:
    """Query heads must fall evenly on the GPUs; key heads too, or be repeated evenly where there are fewer of them."""
    text = text_config(config)
    heads = int(text.get("num_attention_heads") or 1)
    keys = int(text.get("num_key_value_heads") or heads)
    return size == 1 or (heads % size == 0 and (keys % size == 0 or size % keys == 0))
