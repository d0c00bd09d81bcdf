"""What a person asks for when submitting a model, from the form, the command line or the API. Not yet checked.

Imports no database and no Hub client, so that the command line starts at once.
"""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.wire import Precision

DEFAULT_SUITE = "open-llm-v2"


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

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    model: str = Field(min_length=1, max_length=1000, examples=["org/name"])
    """Hub id, or the absolute path of a folder on the hub's machine."""
    revision: str | None = Field(default=None, max_length=200)
    """Branch, tag or commit; the default branch when left out. Pinned to its commit on acceptance."""
    precision: Precision | Literal["auto"] = "auto"
    """What to load the weights as; `auto` takes what they were saved in."""
    weight_type: Literal["original", "adapter"] = "original"
    base_model: str | None = Field(default=None, max_length=1000)
    """For an adapter; read from its adapter_config.json when left out."""
    base_revision: str | None = Field(default=None, max_length=200)
    model_type: ModelType = ModelType.UNKNOWN
    chat_template: bool | None = None
    """Whether prompts go through the model's chat template; the suite's default when left out."""
    suite: str = Field(default=DEFAULT_SUITE, max_length=100)
    limit: int | None = Field(default=None, gt=0, le=1_000_000)
    """Documents for each lm-eval task. An evaluation with a limit is a trial: it is never ranked."""
