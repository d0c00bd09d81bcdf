"""What an adapter's config says that no engine here applies, so that nobody waits for it. Pure; reads no file.

The engine looks at the adapter's tensors as well, and has the last word.
"""

import re
from typing import Any

from orchestrator.wire import EngineFamily
from submissions.words import shown

WEIGHTS = "adapter_model.safetensors"

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM keeps room for."""

UNAPPLIED = {
    "modules_to_save": "brings whole modules beside its low-rank updates (modules_to_save)",
    "trainable_token_indices": "changes rows of the embeddings (trainable_token_indices)",
    "target_parameters": "changes parameters that are no modules (target_parameters)",
    "use_dora": "is weight-decomposed (DoRA)",
    "use_qalora": "pools its inputs (QALoRA)",
    "use_bdlora": "is block-diagonal (BD-LoRA)",
    "lora_bias": "has biases (lora_bias)",
    "layer_replication": "repeats layers of its base model (layer_replication)",
    "alora_invocation_tokens": "is switched on by tokens of the prompt (aLoRA)",
    "megatron_config": "is made for Megatron modules",
}
"""Settings of PEFT's LoRA beside rank, scale and targets, when they are set to anything."""

MOST_PATTERNS, MOST_PATTERN_TEXT = 2048, 256
"""Modules with a rank or scale of their own, and characters of each one's name."""

_PATTERN = re.compile(r"\^?\w+(\.\w+)*")
"""A module's name, or the end of one. Engines take more than that as a regular expression, which need not ever end."""

PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Ways to begin training that leave the base model's weights as they are. The others (PiSSA, OLoRA, …) change them."""


def objection(config: dict[str, Any], engine: EngineFamily) -> str | None:
    """The end of a sentence that begins with the adapter's name; None when nothing in the config is against it."""
    if (kind := config.get("peft_type")) != "LORA":
        return f"is an adapter of kind '{shown(str(kind))}', and only LoRA is applied"
    for name, what in UNAPPLIED.items():
        if config.get(name):
            return f"{what}, which is not applied"
    if config.get("bias") not in (None, "none"):
        return f"trains biases of its base model (bias='{shown(str(config['bias']))}'), which are not applied"
    for name in ("rank_pattern", "alpha_pattern"):
        if (patterns := config.get(name)) and not _named_plainly(patterns):
            return (
                f"gives ranks or scales to more than {MOST_PATTERNS} modules, or not by their names ({name}), which is "
                "not applied"
            )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower() not in PLAIN_STARTS:
        return (
            f"began with changed weights of its base model (init_lora_weights='{shown(start)}'), which no engine makes"
        )
    rank = largest_rank(config)
    if engine is EngineFamily.VLLM and rank > RANKS[-1]:
        return f"has rank {rank}, and vLLM applies ranks up to {RANKS[-1]}"
    return None


def _named_plainly(patterns: Any) -> bool:
    return (
        isinstance(patterns, dict)
        and len(patterns) <= MOST_PATTERNS
        and all(len(name) <= MOST_PATTERN_TEXT and _PATTERN.fullmatch(name) for name in patterns)
    )


def largest_rank(config: dict[str, Any]) -> int:
    """The largest rank that the config gives to any module."""
    by_module = config.get("rank_pattern")
    ranks = [config.get("r"), *(by_module.values() if isinstance(by_module, dict) else ())]
    return max((rank for rank in ranks if isinstance(rank, int)), default=1)


def room(rank: int) -> int:
    """The smallest rank of vLLM's that holds this one."""
    return next((size for size in RANKS if size >= rank), RANKS[-1])
