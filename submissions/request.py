"""What a person asks for when submitting a model, from the form, the command line or the API. Not yet checked.

Imports no database and no Hub client, so that the command line starts at once.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from orchestrator.people import Visibility
from orchestrator.wire import Precision

DEFAULT_SUITE = "open-llm-v2"
PRECISIONS = ("auto", *(precision.value for precision in Precision))
SERIES_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""A part of an address as it stands."""
LAST_STEP = 2**53 - 1
"""The largest whole number that every reader of JSON takes as it is."""
ALSO_CALLED = {
    "fp16": "float16", "f16": "float16", "half": "float16", "bf16": "bfloat16", "brain": "bfloat16",
    "fp32": "float32", "f32": "float32", "full": "float32", "float": "float32",
    "int8": "8bit", "8": "8bit", "8-bit": "8bit", "int4": "4bit", "nf4": "4bit", "4": "4bit", "4-bit": "4bit",
}  # fmt: skip
"""What people call a precision elsewhere: to suggest ours, never to guess it for them."""


class ModelType(StrEnum):
    """What kind of model a submitter says it is; shown and filtered by, never part of the identity."""

    PRETRAINED = "pretrained"
    CONTINUOUSLY_PRETRAINED = "continuously-pretrained"
    FINE_TUNED = "fine-tuned"
    CHAT = "chat"
    MERGE = "merge"
    MULTIMODAL = "multimodal"
    UNKNOWN = "unknown"


class SubmissionRequest(BaseModel):
    """What a person asks for, from the form, the command line or the API."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, use_attribute_docstrings=True)

    model: str = Field(min_length=1, max_length=1000, examples=["org/name"])
    """Hub id, or the absolute path of a folder on the hub's machine."""
    revision: str | None = Field(default=None, max_length=200)
    """Branch, tag or commit; the default branch when left out. Pinned to its commit on acceptance."""
    precision: Precision | Literal["auto"] = "auto"
    """What to load the weights as; `auto` takes what they were saved in."""
    weight_type: Literal["original", "adapter"] = "original"
    """Whether the repository has whole weights, or an adapter on a base model."""
    base_model: str | None = Field(default=None, max_length=1000)
    """For an adapter; read from its adapter_config.json when left out."""
    base_revision: str | None = Field(default=None, max_length=200)
    """Branch, tag or commit of the base model; its default branch when left out."""
    model_type: ModelType = ModelType.UNKNOWN
    """What kind of model it is; shown and filtered by, and never part of what makes two evaluations equal."""
    chat_template: bool | None = None
    """Whether prompts go through the model's chat template; the suite's default when left out."""
    suite: str = Field(default=DEFAULT_SUITE, max_length=100)
    """Name of the suite to evaluate under; GET /api/v1/suites lists them."""
    visibility: Visibility = Visibility.PUBLIC
    """Who may see it: everybody, a team of yours, or you alone; operators see all. Only where there are accounts."""
    team: str | None = Field(default=None, max_length=100)
    """Which team, where you are in several."""
    limit: int | None = Field(default=None, ge=1, le=1_000_000)
    """Documents for each lm-eval task. An evaluation with a limit is a trial: it is never ranked."""
    series: str | None = Field(default=None, pattern=SERIES_NAME)
    """Name of the series that this is a checkpoint of: letters, digits, `.`, `_`, `-`; yours alone. With `step`."""
    step: int | None = Field(default=None, ge=0, le=LAST_STEP)
    """Which step of the series it is: steps, tokens, whatever you count by. With `series`."""

    @model_validator(mode="after")
    def _series_and_step_go_together(self) -> Self:
        if (self.series is None) != (self.step is None):
            raise ValueError("A series and a step go together: name both, or neither.")
        return self

    @field_validator("precision", mode="before")
    @classmethod
    def _refuse_other_names(cls, value: Any) -> Any:
        # The schema's union of `auto` and the rest would tell each of the two as a fault of its own.
        if value not in PRECISIONS:
            raise ValueError(none_of(str(value), PRECISIONS))
        return value


def none_of(value: str, choices: Sequence[str]) -> str:
    """That a word is no choice, which ones there are, and which was probably meant."""
    word = value.strip().casefold()
    near = [ALSO_CALLED[word]] if ALSO_CALLED.get(word) in choices else get_close_matches(word, choices, n=1)
    meant = f" Did you mean '{near[0]}'?" if near else ""
    return f"'{value[:40]}' is none of {', '.join(choices)}.{meant}"
