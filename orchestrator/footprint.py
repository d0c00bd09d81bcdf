"""How large a model is in an engine's memory, and the fewest GPUs that hold it. More GPUs than that are for slices.

Pure: decides from the config, the bytes of the weights and the memory of a GPU. Hub and workers both reckon with it, so
that a job is only given to a worker that can hold it. A config is untrusted: what is no number in it is not known.
"""

from dataclasses import dataclass
from typing import Any

from orchestrator.wire import Precision

GIB = 1 << 30

USUAL_SHARE = 0.92
"""Of a GPU's memory, what a vLLM engine takes when it is told nothing."""

WORKSPACE = 2 * GIB
"""Of each GPU, what activations, logits and CUDA graphs take: about what vLLM sets aside for a mid-sized model."""

CACHE_SEQUENCES = 16
"""Longest requests that an engine should hold at a time, so that its work does not come in single file."""

USUAL_CONTEXT = 4096
"""Tokens of the longest request where nobody says."""

WIDTHS = {"float32": 4, "float": 4, "float64": 8, "bfloat16": 2, "float16": 2, "half": 2}
"""Bytes of a weight by the config's name for its type."""

SHRUNK = {Precision.EIGHT_BIT: 0.6, Precision.FOUR_BIT: 0.35}
"""What quantising on the fly leaves of 16-bit weights; the embeddings stay as they are."""


@dataclass(frozen=True)
class Footprint:
    """What a model needs of the GPUs that hold it."""

    weight_bytes: float
    """As loaded."""
    cache_bytes: float = 0.0
    """Keys and values of one token, all layers."""
    heads: int = 1
    key_heads: int = 1

    def divides(self, size: int) -> bool:
        """Query heads must fall evenly on the GPUs; key heads too, or be repeated evenly where they are fewer."""
        keys = self.key_heads
        return size == 1 or (self.heads % size == 0 and (keys % size == 0 or size % keys == 0))


def footprint(config: dict[str, Any], precision: Precision, stored_bytes: int) -> Footprint:
    """The footprint of weights of so many bytes on disk, loaded in this precision."""
    text = text_config(config)
    heads = _number(text, "num_attention_heads") or 1
    return Footprint(
        weight_bytes=loaded_bytes(config, precision, stored_bytes),
        cache_bytes=cache_bytes_per_token(config, precision),
        heads=heads,
        key_heads=_number(text, "num_key_value_heads") or heads,
    )


def fewest_devices(
    need: Footprint, *, memory_bytes: int, count: int, context: int | None = None, share: float = USUAL_SHARE
) -> int | None:
    """The smallest power of two of a host's `count` GPUs that holds weights and some cache, and divides the heads.

    As many as can share them where only the weights fit, and None where not even those do. `context`: tokens of the
    longest request; `memory_bytes`: of one GPU.
    """
    sizes = sharing(need, count)
    cache = CACHE_SEQUENCES * (context or USUAL_CONTEXT) * need.cache_bytes
    room = share * memory_bytes - WORKSPACE
    for size in sizes:
        if need.weight_bytes + cache <= room * size:
            return size
    return sizes[-1] if need.weight_bytes <= room * sizes[-1] else None


def sharing(need: Footprint, count: int) -> list[int]:
    """How many of `count` GPUs can share the model, the fewest first: powers of two on which its heads fall evenly."""
    powers = [1 << exponent for exponent in range(max(1, count).bit_length())]
    return [size for size in powers if need.divides(size)]


def head_size(config: dict[str, Any]) -> int | None:
    """Width of an attention head, or None where the config does not tell."""
    text = text_config(config)
    if size := _number(text, "head_dim"):
        return size
    hidden, heads = _number(text, "hidden_size"), _number(text, "num_attention_heads")
    return hidden // heads if hidden and heads else None


def cache_bytes_per_token(config: dict[str, Any], precision: Precision) -> int:
    """Keys and values of all layers; more than a model with windows or compressed keys needs."""
    text = text_config(config)
    layers = _number(text, "num_hidden_layers") or 32
    heads = _number(text, "num_key_value_heads") or _number(text, "num_attention_heads") or 32
    return 2 * layers * heads * (head_size(config) or 128) * (4 if precision is Precision.FLOAT32 else 2)


def loaded_bytes(config: dict[str, Any], precision: Precision, stored_bytes: int) -> float:
    """Bytes of the weights as loaded: those of another type than stored grow or shrink, quantised ones stay."""
    if quantization(config):
        return stored_bytes
    stored = WIDTHS.get(stored_dtype(config), 2)
    if precision in SHRUNK:
        return stored_bytes / stored * 2 * SHRUNK[precision]
    return stored_bytes / stored * (4 if precision is Precision.FLOAT32 else 2)


def active_parameters(config: dict[str, Any], total: int) -> int:
    """Weights that one token meets: of a mixture of experts only those of the experts that are asked; else `total`.

    Each expert is taken for three matrices of hidden × expert width, as in Mixtral, Qwen MoE and DeepSeek.
    """
    text = text_config(config)
    experts = next(
        (found for name in ("num_local_experts", "num_experts", "n_routed_experts") if (found := _number(text, name))),
        0,
    )
    asked = _number(text, "num_experts_per_tok") or _number(text, "num_experts_per_token") or 0
    hidden = _number(text, "hidden_size") or 0
    width = _number(text, "moe_intermediate_size") or _number(text, "intermediate_size") or 0
    layers = (_number(text, "num_hidden_layers") or 0) - (_number(text, "first_k_dense_replace") or 0)
    if not 0 < asked < experts or layers <= 0:
        return total
    idle = (experts - asked) * 3 * hidden * width * layers
    return total - idle if 0 < idle < total else total


def kept_facts(config: dict[str, Any]) -> dict[str, Any]:
    """The few entries of a config from which this module reckons, to be kept where the config is not."""
    text = text_config(config)
    kept: dict[str, Any] = {name: value for name in _NUMBERS if (value := _number(text, name)) is not None}
    if dtype := stored_dtype(config):
        kept["dtype"] = dtype[:32]
    if found := quantization(config):
        kept["quantization_config"] = {"quant_method": str(found.get("quant_method") or "")[:64]}
    return kept


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part that describes the language model: multimodal repositories keep it under `text_config`."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


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


_NUMBERS = (
    "num_attention_heads",
    "num_key_value_heads",
    "num_hidden_layers",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    "num_experts_per_token",
    "first_k_dense_replace",
)


def _number(config: dict[str, Any], name: str) -> int | None:
    found = config.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 < found < 1 << 31 else None
