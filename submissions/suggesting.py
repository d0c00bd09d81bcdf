"""What a repository says of itself that a submitter would otherwise type: a suggestion, never a decision. Pure."""

from typing import NamedTuple

from submissions.facts import ModelFacts
from submissions.request import ModelType

MERGES = frozenset({"merge", "mergekit", "moerge", "lazymergekit"})
PICTURES = frozenset({"image-text-to-text", "multimodal", "any-to-any"})


class Suggestion(NamedTuple):
    model_type: ModelType = ModelType.UNKNOWN
    weight_type: str = "original"
    base_model: str | None = None


def suggest(model: ModelFacts) -> Suggestion:
    """Type, kind of weights and base model, from tags, card and configs."""
    adapter = model.adapter_config if model.config is None else None
    named = (adapter or {}).get("base_model_name_or_path")
    return Suggestion(
        model_type=_type(model),
        weight_type="adapter" if adapter is not None else "original",
        base_model=named[:200] if isinstance(named, str) else None,
    )


def _type(model: ModelFacts) -> ModelType:
    tags = {tag.casefold() for tag in model.tags}
    if tags & MERGES:
        return ModelType.MERGE
    if tags & PICTURES:
        return ModelType.MULTIMODAL
    if model.has_chat_template or "conversational" in tags:
        return ModelType.CHAT
    if model.card.base is not None or model.adapter_config is not None:
        return ModelType.FINE_TUNED
    return ModelType.PRETRAINED if model.folder is None else ModelType.UNKNOWN
