"""A LoRA adapter in PEFT's layout, judged before an engine loads it: what it changes, and whether the base has that.

Engines ignore what they do not find: an adapter of another model would be applied in part or not at all, and its base
be scored under its name. Reads JSON and safetensors headers only.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.wire import FailureKind, InferWork, Model
from workers.engine.weights import read_all_shapes, read_shapes
from workers.models.folders import whole_folder
from workers.stage import StageFailure

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

MERGE = "Merge it into its base model (PEFT's merge_and_unload) and submit the merged weights."

Shape = tuple[int, ...]

_PACKED: Shape = ()
"""Stands for a matrix whose stored shape says nothing, as several weights share an element."""

MOST_PATTERNS, MOST_PATTERN_TEXT = 2048, 256
"""Modules with a rank or scale of their own, and characters of each one's name: large models have under a thousand."""

_PATTERN = re.compile(r"\^?\w+(\.\w+)*")
"""A module's name, or the end of one. Engines take more than that as a regular expression, which need not ever end."""

_PART = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(embedding_)?([AB])(?:\.weight)?")

_FOREIGN = (
    (re.compile(r"lora_magnitude_vector"), "is weight-decomposed (DoRA)"),
    (re.compile(r"lora_B\.bias$"), "has a bias"),
    (re.compile(r"token_adapter|trainable_tokens"), "has rows of its own in the embeddings"),
    (re.compile(r"(embed_tokens|wte|lm_head)\.(base_layer\.)?weight$"), "brings embeddings of its own"),
    (re.compile(r""), "brings whole weights beside the low-rank ones"),
)
"""What else PEFT saves into the file, by the tensor's name. The first that fits counts."""


@dataclass(frozen=True)
class Adapter:
    """What an adapter changes."""

    folder: Path
    rank: int
    """The largest of its modules' ranks."""
    widest: int
    """The longest side of the matrices that it changes."""
    modules: tuple[str, ...]
    """Last parts of the changed modules' names, e.g. `("o_proj", "q_proj")`."""
    names: tuple[str, ...]
    """The changed modules' whole names, as the adapter has them."""


def find_adapter(work: InferWork) -> Adapter | None:
    """The work's adapter, if its model is one and fits its base.

    Raises:
        StageFailure: it is damaged, is more than low-rank updates of matrices, or belongs to another base model.
    """
    if work.model.weight_type != "adapter":
        return None
    if work.model_folder is None:
        raise StageFailure(FailureKind.WEIGHTS, "The work names no folder of the adapter. Give `model_folder`.")
    return read_adapter(work.model, Path(work.model_folder), read_all_shapes(whole_folder(work.model, None)))


def read_adapter(model: Model, folder: Path, base: Mapping[str, Shape]) -> Adapter:
    """The adapter in `folder`, after making sure that every module it changes is one of `base`, by name and shape.

    Engines scale an update by the rank that the config gives to it, so each must have that rank.

    Raises:
        StageFailure: as `find_adapter`.
    """
    config = read_adapter_config(model, folder)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise StageFailure(
            FailureKind.ARCHITECTURE,
            f"Model {model.name} is an adapter of kind {str(kind)[:40]!r}, and only LoRA is applied. {MERGE}",
        )
    if not (folder / WEIGHTS).is_file():
        raise StageFailure(
            FailureKind.WEIGHTS,
            f"The adapter {model.name} has no {WEIGHTS}, and no other format is loaded. Save it again with "
            "save_pretrained(safe_serialization=True).",
        )
    parts = _parts(model, read_shapes(folder / WEIGHTS))
    known = _by_place(base)
    _check_scale(model, config)
    for module, part in parts.items():
        if part.rank != (said := _rank(config, module)):
            raise StageFailure(
                FailureKind.WEIGHTS,
                f"The adapter {model.name} holds an update of rank {part.rank} for {module}, and its {CONFIG} says "
                f"rank {said}, by which it would be scaled wrongly. Save both files again, from one training.",
            )
        if not known.get(_place(module), set()) & {part.whole, part.whole[::-1], _PACKED}:
            raise StageFailure(
                FailureKind.WEIGHTS,
                f"The adapter {model.name} changes {module} ({' × '.join(map(str, part.whole))}), and its base model "
                f"{model.base_name} has no such matrix. Name the base model that it was trained on, or merge it.",
            )
    return Adapter(
        folder,
        rank=max(part.rank for part in parts.values()),
        widest=max(side for part in parts.values() for side in part.whole),
        modules=tuple(sorted({module.rpartition(".")[2] for module in parts})),
        names=tuple(sorted(parts)),
    )


def _check_scale(model: Model, config: dict[str, Any]) -> None:
    ranks = [config.get("r"), *_pattern(config, "rank_pattern").values()]
    alphas = [config.get("lora_alpha"), *_pattern(config, "alpha_pattern").values()]
    if not all(type(rank) is int and rank > 0 for rank in ranks) or not all(
        type(alpha) in (int, float) and math.isfinite(alpha) for alpha in alphas
    ):
        raise StageFailure(
            FailureKind.CONFIG,
            f"{CONFIG} of the adapter {model.name} gives no plain rank and scale (r, lora_alpha) for each of its "
            "modules. Save it again.",
        )


def _rank(config: dict[str, Any], module: str) -> Any:
    """The rank that the config gives to a module, by PEFT's rule: the first pattern counts that its name ends with."""
    for pattern, rank in _pattern(config, "rank_pattern").items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return rank
    return config["r"]


def _pattern(config: dict[str, Any], name: str) -> dict[str, Any]:
    return config.get(name) or {}


@dataclass(frozen=True)
class _Part:
    """One module's update."""

    whole: Shape
    """Shape of the matrix that it changes."""
    rank: int


def _parts(model: Model, tensors: Mapping[str, Shape]) -> dict[str, _Part]:
    halves: dict[str, dict[str, Shape]] = defaultdict(dict)
    embeddings: set[str] = set()
    for name, shape in tensors.items():
        found = _PART.fullmatch(name)
        if found is None:
            why = next(meaning for pattern, meaning in _FOREIGN if pattern.search(name))
            raise StageFailure(
                FailureKind.ARCHITECTURE, f"The adapter {model.name} {why} ({name}), which is not applied. {MERGE}"
            )
        module, embedding, half = found.groups()
        halves[module][half] = shape
        if embedding:
            embeddings.add(module)
    parts: dict[str, _Part] = {}
    for module, shapes in halves.items():
        first, second = shapes.get("A", ()), shapes.get("B", ())
        if len(first) != 2 or len(second) != 2 or first[0] != second[1] or 0 in first + second:
            raise StageFailure(
                FailureKind.WEIGHTS,
                f"The adapter {model.name} does not hold two matrices that fit each other for {module}. Save it again.",
            )
        whole = (first[1], second[0]) if module in embeddings else (second[0], first[1])
        parts[module] = _Part(whole, first[0])
    if not parts:
        raise StageFailure(FailureKind.WEIGHTS, f"The adapter {model.name} holds no tensor. Upload its weights.")
    return parts


def _by_place(base: Mapping[str, Shape]) -> dict[str, set[Shape]]:
    places: dict[str, set[Shape]] = defaultdict(set)
    for name, shape in base.items():
        module, _, what = name.partition(".weight.")[0].rpartition(".")
        if ".weight." in name or what in ("qweight", "weight_packed"):
            places[_place(name.partition(".weight.")[0] if ".weight." in name else module)].add(_PACKED)
        elif what == "weight":
            places[_place(module)].add(shape)
    return places


def _place(module: str) -> str:
    """A module's name from its layer on: classes and checkpoints differ in what they put in front of it."""
    names = module.split(".")
    numbers = [position for position, name in enumerate(names) if name.isdigit()]
    return ".".join(names[max(numbers[0] - 1, 0) :]) if numbers else names[-1]


def read_adapter_config(model: Model, folder: Path) -> dict[str, Any]:
    """adapter_config.json of the folder, with nothing in it that engines would run as a regular expression.

    Raises:
        StageFailure: it is missing, no JSON object, or holds other patterns than names.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StageFailure(
            FailureKind.CONFIG, f"{CONFIG} of the adapter {model.name} cannot be read: {error}. Save it again."
        ) from error
    if not isinstance(config, dict):
        raise StageFailure(FailureKind.CONFIG, f"{CONFIG} of the adapter {model.name} is not a JSON object.")
    for name in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(name) or {}
        if not isinstance(patterns, dict) or len(patterns) > MOST_PATTERNS or not all(map(_plain, patterns)):
            raise StageFailure(
                FailureKind.ARCHITECTURE,
                f"The adapter {model.name} gives ranks or scales to more than {MOST_PATTERNS} modules, or not by their "
                f"names ({name}), which is not applied. {MERGE}",
            )
    return config


def _plain(pattern: str) -> bool:
    return len(pattern) <= MOST_PATTERN_TEXT and _PATTERN.fullmatch(pattern) is not None
