"""Standings: one row for each finished evaluation of a suite, ranked by average or listed apart with the reason.

A board is of one version of a suite, and holds no evaluation of another; trials and gaps are never ranked.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import sqlalchemy
from sqlmodel import Session, col, select

from orchestrator.flags import flags_by_model
from orchestrator.lifecycle import EvaluationState
from orchestrator.people import Visibility
from orchestrator.suites import Suite
from orchestrator.tables import Evaluation, Flag, Score, Source, Submission
from orchestrator.wire import EngineFamily


@dataclass(frozen=True)
class Cell:
    """One benchmark of one row, 0 to 100."""

    value: float
    """Normalised as the suite says."""
    raw: float | None = None
    stderr: float | None = None
    samples: int = 0


@dataclass(frozen=True)
class Flagging:
    """A warning about a row, as operators wrote it."""

    kind: str
    reason: str
    link: str = ""


@dataclass(frozen=True)
class Standing:
    """One row of the board."""

    evaluation: int
    model: str
    revision: str
    suite: str
    suite_version: str
    precision: str
    engine: str
    model_type: str = "unknown"
    weight_type: str = "original"
    base_model: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    licence: str | None = None
    chat_template: bool = False
    on_hub: bool = True
    active_parameters: int | None = None
    """Of a mixture of experts: the weights that one token meets; else all of them."""
    average: float | None = None
    cells: Mapping[str, Cell] = field(default_factory=dict)
    document_limit: int | None = None
    submitted_at: datetime | None = None
    ended_at: datetime | None = None
    device_seconds: float | None = None
    """How long devices were held to answer it, times their number; None where it was not told."""
    tokens_per_second: float | None = None
    """Prompt and generated tokens that engines computed, per second of engine time."""
    flags: tuple[Flagging, ...] = ()
    """What operators warn of, the oldest first."""
    visibility: Visibility = Visibility.PUBLIC
    team: str | None = None
    person: int | None = None
    """Who submitted it."""
    imported_from: str = ""
    """Where its numbers were imported from; empty for what was evaluated here."""
    rank: int | None = None
    """1 is the best; equal averages share a rank. None for a row that is listed apart."""
    apart_because: str = ""
    """Why the row is not ranked; empty for one that is."""

    @cached_property
    def folded(self) -> str:
        """The model's name for a search in any case; kept, since a search asks it of every row."""
        return self.model.casefold()

    @property
    def is_mixture(self) -> bool:
        """Whether only some of its weights meet each token."""
        return None not in (self.parameters, self.active_parameters) and self.active_parameters != self.parameters

    @property
    def average_stderr(self) -> float | None:
        """Standard error of the average, benchmarks being independent; None when one of them has none."""
        errors = [cell.stderr for cell in self.cells.values()]
        if not errors or any(error is None for error in errors):
            return None
        return math.sqrt(math.fsum(error**2 for error in errors if error is not None)) / len(errors)


@dataclass(frozen=True)
class Board:
    """The rows of one suite version."""

    suite: Suite
    ranked: tuple[Standing, ...] = ()
    apart: tuple[Standing, ...] = ()


def read_board(session: Session, suite: Suite) -> Board:
    """Every finished evaluation of this suite under this version of it, as the board shows it."""
    return rank_rows(suite, read_standings(session, suite))


def read_standings(session: Session, suite: Suite, *, only: Collection[int] | None = None) -> list[Standing]:
    """The finished evaluations of a suite's version, of all or of these ids, in the order of their ids; not ranked."""
    wanted = [
        col(Evaluation.suite) == suite.name,
        col(Evaluation.suite_version) == suite.version,
        col(Evaluation.state) == EvaluationState.FINISHED,
    ]
    if only is not None:
        wanted.append(col(Evaluation.id).in_(only))
    pairs = session.exec(
        select(Evaluation, Submission)
        .join(Submission, col(Submission.id) == col(Evaluation.submission_id))
        .where(*wanted)
        .order_by(col(Evaluation.id))
    ).all()
    if not pairs:
        return []
    numbers = (Score.evaluation_id, Score.benchmark, Score.metric, Score.value, Score.stderr, Score.samples)
    scores = session.execute(  # provenance is large and not needed here, but for the cost, which each benchmark repeats
        sqlalchemy.select(*(col(number) for number in numbers))
        .join(Evaluation, col(Evaluation.id) == col(Score.evaluation_id))
        .where(*wanted, col(Score.task) == "")
    ).all()
    costs = session.execute(
        sqlalchemy.select(col(Score.evaluation_id), col(Score.provenance)["infer"]["cost"])
        .join(Evaluation, col(Evaluation.id) == col(Score.evaluation_id))
        .where(
            *wanted,
            col(Score.task) == "",
            col(Score.metric) == "value",
            col(Score.benchmark) == suite.benchmarks[0].name,
        )
    ).all()
    cells, spent = _cells(scores), {evaluation: cost for evaluation, cost in costs if isinstance(cost, dict)}
    flags = flags_by_model(session, {submission.model for _, submission in pairs} if only is not None else None)
    sources = (
        {source.id: source.shown for source in session.exec(select(Source)).all()}
        if any(evaluation.source_id is not None for evaluation, _ in pairs)
        else {}
    )
    return [
        _standing(
            evaluation,
            submission,
            cells=cells.get(evaluation.id or 0, {}),
            cost=spent.get(evaluation.id or 0, {}),
            flags=[flag for flag in flags.get(submission.model, ()) if flag.applies_to(submission, evaluation)],
            imported_from=sources.get(evaluation.source_id, "elsewhere") if evaluation.source_id is not None else "",
        )
        for evaluation, submission in pairs
    ]


def rank_rows(suite: Suite, rows: Iterable[Standing]) -> Board:
    """Rows in their order with their ranks; those that may not be ranked apart, with the reason. Pure."""
    ranked: list[Standing] = []
    apart: list[Standing] = []
    for row in rows:
        because = apart_because(suite, row)
        if because:
            apart.append(replace(row, rank=None, apart_because=because))
        else:
            ranked.append(row)
    ranked.sort(key=lambda row: (-(row.average or 0.0), row.model.casefold(), row.evaluation))
    placed: list[Standing] = []
    for position, row in enumerate(ranked, start=1):
        equal = placed[-1] if placed and placed[-1].average == row.average else None
        placed.append(replace(row, rank=equal.rank if equal else position, apart_because=""))
    apart.sort(key=lambda row: row.evaluation, reverse=True)
    return Board(suite, tuple(placed), tuple(apart))


def apart_because(suite: Suite, row: Standing) -> str:
    """Why a row may not be ranked on the board of this suite; empty for one that may."""
    if row.engine == EngineFamily.SCRIPTED:
        return "Its answers are made up by the scripted engine, the test double: no model gave them."
    if row.suite_version != suite.version:
        return f"Made under version {row.suite_version} of the suite; this board shows version {suite.version}."
    if row.document_limit is not None:
        return f"A trial: at most {row.document_limit} documents of each task."
    missing = [benchmark.name for benchmark in suite.benchmarks if benchmark.name not in row.cells]
    if missing:
        return f"No score for {', '.join(missing)}, so there is no average."
    if row.average is None or not math.isfinite(row.average):
        return "There is no average."
    return ""


def _cells(
    scores: Iterable[Any],
) -> dict[int, dict[str, Cell]]:
    values: dict[int, dict[str, Cell]] = defaultdict(dict)
    raws: dict[tuple[int, str], float] = {}
    for evaluation, benchmark, metric, value, stderr, samples in scores:
        if metric == "value":
            values[evaluation][benchmark] = Cell(value, stderr=stderr, samples=samples)
        elif metric == "raw":
            raws[evaluation, benchmark] = value
    return {
        evaluation: {name: replace(cell, raw=raws.get((evaluation, name))) for name, cell in row.items()}
        for evaluation, row in values.items()
    }


def _standing(
    evaluation: Evaluation,
    submission: Submission,
    *,
    cells: Mapping[str, Cell],
    cost: Mapping[str, Any],
    flags: Iterable[Flag],
    imported_from: str,
) -> Standing:
    assert evaluation.id is not None
    active = submission.facts.get("active_parameters")
    seconds, tokens = _number(cost.get("seconds")), _number(cost.get("tokens_computed"))
    return Standing(
        evaluation=evaluation.id,
        model=submission.model,
        revision=submission.revision,
        suite=evaluation.suite,
        suite_version=evaluation.suite_version,
        precision=submission.precision.value,
        engine=evaluation.engine.value,
        model_type=submission.model_type,
        weight_type=submission.weight_type,
        base_model=submission.base_model,
        architecture=submission.architecture,
        parameters=submission.parameters,
        licence=submission.licence,
        chat_template=submission.chat_template,
        on_hub=submission.folder is None and submission.facts.get("on_hub") is not False,
        average=evaluation.average,
        cells=cells,
        document_limit=evaluation.document_limit,
        submitted_at=submission.submitted_at,
        ended_at=evaluation.ended_at,
        active_parameters=active if isinstance(active, int) else submission.parameters,
        device_seconds=_number(cost.get("device_seconds")),
        tokens_per_second=tokens / seconds if tokens and seconds else None,
        flags=(*(Flagging(flag.kind.value, flag.reason, flag.link) for flag in flags), *_flags_of_source(submission)),
        visibility=submission.visibility,
        team=submission.team,
        person=submission.person_id,
        imported_from=imported_from,
    )


def _flags_of_source(submission: Submission) -> Iterable[Flagging]:
    """What the operators of an imported row's board warn of; it is said of that row alone."""
    for flag in submission.facts.get("flags_of_source") or ():
        yield Flagging(str(flag["kind"]), str(flag["reason"]), str(flag.get("link") or ""))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
