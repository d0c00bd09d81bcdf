"""Suites are data: a versioned list of benchmarks in a TOML file, checked on reading.

Shipped files are in `orchestrator/suites/`; a team adds its own in a configured folder (`EVALYARD_SUITES`). Nothing
here runs a benchmark: `workers.harness` does, from the names that a suite gives.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from orchestrator.errors import EvalyardError, NotFound
from orchestrator.wire import Benchmark, Frozen, ScoreValue

SHIPPED = Path(__file__).parent / "suites"


class SuiteError(EvalyardError):
    """A suite file cannot be used as it stands."""


class UnknownSuite(NotFound):
    """No suite has the asked name."""


class Part(Frozen):
    """One number that a benchmark counts: a task's or group's metric, and what guessing gives."""

    task: str = Field(min_length=1)
    """Name of an lm-eval task or group, or a pattern (`mmlu_*`) for every subtask that it matches."""
    metric: str
    filter: str = "none"
    baseline: float = Field(default=0.0, ge=0.0, lt=1.0)
    """The score of guessing, 0 to 1: the 0 of the normalised scale."""
    except_tasks: tuple[str, ...] = ()
    """Names that a pattern matches and must not count, such as the groups between."""
    count: int = Field(default=1, ge=1)
    """How many tasks a pattern must match: fewer or more is an error, never a different mean."""

    @model_validator(mode="after")
    def _pattern_and_count_agree(self) -> Self:
        if "*" in self.task and "count" not in self.model_fields_set:
            raise ValueError(f"the pattern '{self.task}' needs `count`, the number of tasks it must match")
        if "*" not in self.task and (self.count != 1 or self.except_tasks):
            raise ValueError(f"`count` and `except_tasks` belong to a pattern such as '{self.task}_*'")
        return self

    def select(self, scores: Sequence[ScoreValue]) -> list[ScoreValue]:
        """The scores that this part counts, in the given order."""
        return [
            score
            for score in scores
            if (score.metric, score.filter) == (self.metric, self.filter)
            and fnmatchcase(score.task, self.task)
            and score.task not in self.except_tasks
        ]


TAKEN = frozenset({"rank", "places", "model", "average", "parameters"})
"""Names of columns by which a board itself ranks, shows and filters its rows."""


class SuiteBenchmark(Frozen):
    """One column: what the harness runs, and how its numbers become one."""

    name: str = Field(min_length=1, max_length=40)
    tasks: tuple[str, ...] = Field(min_length=1)
    """lm-eval task or group names."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """None leaves the shots that the task's own file gives."""
    gen_kwargs: dict[str, Any] = Field(default_factory=dict)
    parts: tuple[Part, ...] = Field(min_length=1)
    normalised: bool = True
    """Whether the value counts from the baselines (0) to 1 (100), or is the plain percentage."""
    raw_task: str | None = None
    """Group whose own number is shown as `raw`; otherwise the plain mean of the parts."""
    description: str = ""
    confidential: bool = False
    """Whether its samples are hidden: for datasets that must not become known. The scores are shown."""

    def as_wire(self) -> Benchmark:
        return Benchmark(
            name=self.name, tasks=self.tasks, num_fewshot=self.num_fewshot, gen_kwargs=dict(self.gen_kwargs)
        )


class Suite(Frozen):
    """A versioned list of benchmarks. A change that moves a score is a new version."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=60)
    version: str = Field(min_length=1, max_length=60)
    title: str
    description: str = ""
    harness: str
    """The harness that the tasks are written for, e.g. `lm_eval 0.4.13`."""
    chat_template: bool = False
    """Whether a submission that does not say so applies the model's chat template."""
    fewshot_as_multiturn: bool = True
    """With a chat template: each example is a turn of its own, as lm-eval 0.4.13 does by itself."""
    system_instruction: str | None = None
    benchmarks: tuple[SuiteBenchmark, ...] = Field(min_length=1)
    known_problems: tuple[str, ...] = ()
    """What a reader of the scores must know, a sentence each."""

    @field_validator("harness")
    @classmethod
    def _harness_has_a_version(cls, harness: str) -> str:
        # Workers name their environments so: another spelling would wait for ever.
        if not re.fullmatch(r"lm_eval \d[0-9A-Za-z.]*", harness):
            raise ValueError(f"'{harness[:60]}' names no version of a harness; write it like lm_eval 0.4.13")
        return harness

    @model_validator(mode="after")
    def _benchmark_names_are_unique(self) -> Self:
        # Artifact keys use slugs of names, so names that differ only in letter case would meet in one folder.
        names = [benchmark.name.casefold() for benchmark in self.benchmarks]
        for benchmark in self.benchmarks:
            if benchmark.name in TAKEN:
                raise ValueError(f"no benchmark can be called '{benchmark.name}': a board has a column of that name")
            if names.count(benchmark.name.casefold()) > 1:
                raise ValueError(f"the benchmark '{benchmark.name}' is there twice: each needs a name of its own")
        return self

    def benchmark(self, name: str) -> SuiteBenchmark:
        for benchmark in self.benchmarks:
            if benchmark.name == name:
                return benchmark
        names = [benchmark.name for benchmark in self.benchmarks]
        raise NotFound(f"Suite '{self.name}' has no benchmark '{name}'.{meant(name, names)} It has {_listed(names)}.")


def load_suites(extra: Path | None = None) -> dict[str, Suite]:
    """Every suite by name: the shipped ones and those of a further folder.

    Raises:
        SuiteError: a file cannot be read, is no suite, or has a name that is taken.
    """
    files = sorted(SHIPPED.glob("*.toml"))
    if extra is not None:
        if not extra.is_dir():
            raise SuiteError(f"The suites folder {extra} does not exist. Create it or mend EVALYARD_SUITES.")
        files += sorted(extra.glob("*.toml"))
    suites: dict[str, Suite] = {}
    origin: dict[str, Path] = {}
    for file in files:
        suite = read_suite(file)
        if suite.name in suites:
            raise SuiteError(
                f"{file} and {origin[suite.name]} both define the suite '{suite.name}'. Give one another name."
            )
        suites[suite.name] = suite
        origin[suite.name] = file
    return suites


def task_folders(extra: Path | None) -> tuple[str, ...]:
    """A team's own lm-eval task files lie in `tasks/` beside its suite files."""
    return (str((extra / "tasks").absolute()),) if extra is not None and (extra / "tasks").is_dir() else ()


def read_suite(file: Path) -> Suite:
    """The suite of one file.

    Raises:
        SuiteError: with a sentence that names the file, the place and the mistake.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"The suite file {file} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"The suite file {file} is not TOML: {error}. Mend that line.") from error
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        raise SuiteError(f"The suite file {file} cannot be used. {_sentences(error)}") from error


def find_suite(suites: Mapping[str, Suite], name: str) -> Suite:
    """The suite of that name.

    Raises:
        UnknownSuite: with the nearest name there is.
    """
    if name in suites:
        return suites[name]
    raise UnknownSuite(f"There is no suite '{name}'.{meant(name, suites)} Suites here: {_listed(sorted(suites))}.")


_MODELS: dict[str, type[BaseModel]] = {"benchmarks": SuiteBenchmark, "parts": Part}


def _sentences(error: ValidationError) -> str:
    """A sentence for each mistake; a list that is short only because an item is wrong is not one of its own."""
    details = error.errors()
    places = [detail["loc"] for detail in details]
    return " ".join(
        _sentence(detail)
        for detail in details
        if detail["type"] != "too_short"
        or not any(place[:-1][: len(detail["loc"])] == detail["loc"] for place in places)
    )


def _sentence(detail: ErrorDetails) -> str:
    *path, last = detail["loc"] or ("",)
    place = _place(path)
    if detail["type"] == "extra_forbidden":
        names = [str(step) for step in path if isinstance(step, str)]
        known = list((_MODELS[names[-1]] if names else Suite).model_fields)
        return f"The key '{last}' is not known{place}.{meant(str(last), known)} Known keys: {_listed(known)}."
    if detail["type"] == "missing":
        return f"The key '{last}' is missing{place}."
    message = detail["msg"].removeprefix("Value error, ")
    return f"{_place(detail['loc']).removeprefix(' in ') or 'the suite'}: {message}."


def _place(path: Sequence[int | str]) -> str:
    """` in benchmarks 2, parts 1` for ("benchmarks", 1, "parts", 0); empty for the file itself."""
    words: list[str] = []
    for step in path:
        if isinstance(step, int) and words:
            words[-1] += f" {step + 1}"
        else:
            words.append(str(step))
    return f" in {', '.join(words)}" if words else ""


def meant(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'ARC'?`, or nothing where no known name is like this one."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
