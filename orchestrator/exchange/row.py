"""One row of a board as it is published and read back: everything that its rank and its numbers hang on. Pure.

What comes from elsewhere is checked here: sizes, ranges, names. A text that a page could not show is refused, never
mended.
"""

import hashlib
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from orchestrator.suites import Suite
from orchestrator.wire import EngineFamily, FailureKind, Frozen, Precision, canonical_json

MOST_SCORES = 5000
MOST_PROVENANCE_BYTES = 1 << 20
MODEL_TYPES = (
    "pretrained", "continuously-pretrained", "fine-tuned", "chat", "merge", "multimodal", "unknown",
)  # fmt: skip
WEIGHT_TYPES = ("original", "adapter", "delta")


def _clean(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be shown")
    return text


def _name(text: str) -> str:
    """A model's name: of the Hub, or a folder's last part."""
    parts = text.split("/")
    if (
        len(parts) > 2
        or text.startswith("-")
        or any(part.strip() != part or part in ("", ".", "..") for part in parts)
        or "\\" in text
    ):
        raise ValueError(f"{text[:60]!r} is no name of a model")
    return text


def _in_utc(at: datetime) -> datetime:
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    if not 2000 <= at.year < 3000:
        raise ValueError("no result is of that year")
    return at


def _web_address(text: str) -> str:
    if text and (urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).hostname):
        raise ValueError("is no web address")
    return text


def _one_of(*known: str) -> AfterValidator:
    def check(text: str) -> str:
        if text not in known:
            raise ValueError(f"{text[:40]!r} is none of {', '.join(known)}")
        return text

    return AfterValidator(check)


Text = Annotated[str, Field(max_length=500), AfterValidator(_clean)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_clean), AfterValidator(_name)]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
Moment = Annotated[datetime, AfterValidator(_in_utc)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Finite = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
Error = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Samples = Annotated[int, Field(ge=0, lt=1 << 31)]
Short = Annotated[str, Field(max_length=150), AfterValidator(_clean)]
"""So that a key of three of these fits into a database's index."""


class Number(Frozen):
    """One score; with an empty task a benchmark's own `value` or `raw`, 0 to 100."""

    benchmark: Annotated[str, Field(min_length=1, max_length=40), AfterValidator(_clean)]
    task: Short = ""
    metric: Short
    filter: Short = ""
    value: Finite
    stderr: Error | None = None
    samples: Samples = 0


class Missing(Frozen):
    """A benchmark without a score, and the class of the reason."""

    benchmark: Annotated[str, Field(min_length=1, max_length=40), AfterValidator(_clean)]
    kind: FailureKind = FailureKind.HARNESS
    sentence: Text = ""


class Warning(Frozen):
    """What the source's operators warn of."""

    kind: Text
    reason: Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_clean)]
    link: Annotated[str, Field(max_length=500), AfterValidator(_clean), AfterValidator(_web_address)] = ""


class Origin(Frozen):
    """Where a row came from that its publisher had imported itself."""

    source: Text
    layout: Text
    revision: Text = ""
    read_at: Moment


class Row(Frozen):
    """A finished evaluation with its submission, its scores and their provenance."""

    evaluation: Count
    """Its number at the source."""
    model: Name
    revision: Revision
    precision: Precision
    weight_type: Annotated[str, _one_of(*WEIGHT_TYPES)] = "original"
    base_model: Name | None = None
    base_revision: Revision | None = None
    model_type: Annotated[str, _one_of(*MODEL_TYPES)] = "unknown"
    chat_template: bool = False
    architecture: Text | None = None
    parameters: Count | None = None
    active_parameters: Count | None = None
    licence: Text | None = None
    on_hub: bool = True
    engine: EngineFamily
    document_limit: Annotated[int, Field(ge=1, le=10**9)] | None = None
    average: Percent | None = None
    submitted_at: Moment | None = None
    started_at: Moment | None = None
    ended_at: Moment | None = None
    """A source may not say when: then it counts as of the moment at which it was first imported."""
    scores: Annotated[tuple[Number, ...], Field(min_length=1, max_length=MOST_SCORES)]
    missing: Annotated[tuple[Missing, ...], Field(max_length=100)] = ()
    flags: Annotated[tuple[Warning, ...], Field(max_length=50)] = ()
    provenance: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By benchmark."""
    origin: Origin | None = None

    @model_validator(mode="after")
    def _each_number_once(self) -> Self:
        keys = [(one.benchmark, one.task, one.metric, one.filter) for one in self.scores]
        if len(set(keys)) < len(keys):
            raise ValueError("a score is there twice")
        for one in self.scores:
            if not one.task and (one.metric not in ("value", "raw") or not 0 <= one.value <= 100):
                raise ValueError(f"{one.benchmark}: {one.value:g} is no value from 0 to 100")
        return self

    @model_validator(mode="after")
    def _provenance_is_small(self) -> Self:
        try:
            size = len(canonical_json(self.provenance))
        except (ValueError, RecursionError) as error:
            raise ValueError("the provenance is no plain JSON") from error
        if size > MOST_PROVENANCE_BYTES:
            raise ValueError("the provenance is larger than 1 MiB")
        return self

    @property
    def values(self) -> dict[str, Number]:
        """The benchmarks' own values by name."""
        return {one.benchmark: one for one in self.scores if not one.task and one.metric == "value"}

    @property
    def identity(self) -> str:
        """Digest of what makes it the same row of its source, whatever its numbers are by now."""
        facts = self.model_dump(
            mode="json",
            include={
                "model", "revision", "precision", "weight_type", "base_model", "base_revision", "chat_template",
                "engine", "document_limit",
            },
        )  # fmt: skip
        return hashlib.sha256(canonical_json(facts)).hexdigest()[:40]

    @property
    def digest(self) -> str:
        """Of everything in it."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json"))).hexdigest()


def check_against(suite: Suite, row: Row, *, tolerance: float) -> str:
    """Why the row cannot stand on this suite's board; empty where it can.

    `tolerance`: by how much the average may differ from the mean of the row's own values, which a source may round.
    """
    names = {benchmark.name for benchmark in suite.benchmarks}
    told = {one.benchmark for one in row.scores} | {one.benchmark for one in row.missing}
    strange = sorted(told - names)
    if strange:
        return f"the suite {suite.name} has no benchmark {', '.join(strange)[:100]}"
    values = row.values
    if row.average is None:
        return ""
    if set(values) != names:
        return "it has an average, and not every benchmark"
    mean = sum(one.value for one in values.values()) / len(values)
    if abs(mean - row.average) > tolerance:
        return f"its average {row.average:.2f} does not follow from its benchmarks, whose mean is {mean:.2f}"
    return ""


PATHLIKE = re.compile(r"(?:^|[\s='\"(\[,])(?:/[^/\s]|~/|[A-Za-z]:\\|file:)")


def without_places(value: Any, *, depth: int = 12) -> Any:
    """The same JSON without texts that name a place on a machine: those tell of the cluster, not of the score.

    Of what is nested deeper than `depth` nothing is left.
    """
    if isinstance(value, str):
        return None if PATHLIKE.search(value) else value
    if depth == 0 and isinstance(value, dict | list | tuple):
        return None
    if isinstance(value, dict):
        return {str(key): without_places(item, depth=depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(item, depth=depth - 1) for item in value]
    return value
