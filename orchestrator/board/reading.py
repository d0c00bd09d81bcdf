"""Reads standings from the database: whole boards of many thousand rows, or the few that changed.

Only columns are read, and only those that a board needs: a session's objects would take ten times as long.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, Row, inspect
from sqlmodel import Session, col, select

from orchestrator.board.standings import Board, Cell, Flagging, Standing, rank_rows
from orchestrator.flags import flags_by_model
from orchestrator.lifecycle import EvaluationState
from orchestrator.suites import Suite
from orchestrator.tables import Evaluation, Flag, Score, Source, Submission

COLUMNS = (
    *(Evaluation.id, Evaluation.suite, Evaluation.suite_version, Evaluation.engine, Evaluation.average),
    *(Evaluation.document_limit, Evaluation.ended_at, Evaluation.source_id),
    *(Submission.model, Submission.revision, Submission.precision, Submission.model_type, Submission.weight_type),
    *(Submission.base_model, Submission.architecture, Submission.parameters, Submission.licence),
    *(Submission.chat_template, Submission.folder, Submission.facts, Submission.submitted_at),
    *(Submission.visibility, Submission.team, Submission.person_id),
)
"""Of an evaluation and its submission; each has a name of its own."""
MOST_OF_ANYTHING = 1e15
"""Seconds or tokens: more than any evaluation takes."""
ROWS_AT_ONCE = 5000
"""Taken from the driver: one by one takes longer, all together more memory."""


def read_board(session: Session, suite: Suite) -> Board:
    """Every finished evaluation of this suite under this version of it, as the board shows it."""
    return rank_rows(suite, read_standings(session, suite))


def read_standings(session: Session, suite: Suite, *, only: Collection[int] | None = None) -> list[Standing]:
    """The finished evaluations of a suite's version, of all or of these ids, in the order of their ids; not ranked."""
    found = session.execute(
        sqlalchemy.select(*(col(one) for one in COLUMNS))
        .join(Submission, col(Submission.id) == col(Evaluation.submission_id))
        .where(*_wanted(Evaluation, suite, only))
        .order_by(col(Evaluation.id))
    ).all()
    if not found:
        return []
    cells, spent = _read_cells(session, suite, only), _read_costs(session, suite, only)
    flags = flags_by_model(session, {row.model for row in found} if only is not None else None)
    sources: dict[int | None, str] = {}
    if any(row.source_id is not None for row in found):
        sources = {source.id: source.shown for source in session.exec(select(Source)).all()}
    return [
        _standing(
            row,
            cells=cells.get(row.id, {}),
            cost=spent.get(row.id, {}),
            flags=[flag for flag in flags.get(row.model, ()) if flag.revision in (None, row.revision)],
            imported_from=sources.get(row.source_id, "elsewhere") if row.source_id is not None else "",
        )
        for row in found
    ]


def _wanted(evaluation: Any, suite: Suite, only: Collection[int] | None) -> list[ColumnElement[bool]]:
    """`evaluation` has the table's columns: the class, or the bare table's `c`."""
    wanted = [
        evaluation.suite == suite.name,
        evaluation.suite_version == suite.version,
        evaluation.state == EvaluationState.FINISHED,
    ]
    return wanted if only is None else [*wanted, evaluation.id.in_(only)]


def _read_cells(session: Session, suite: Suite, only: Collection[int] | None) -> Mapping[int, dict[str, Cell]]:
    """By evaluation and benchmark, of everybody's evaluations: who may see one is decided where it was found.

    From the bare tables, which is twice as fast; without provenance, which is large.
    """
    evaluations, scores = inspect(Evaluation).local_table, inspect(Score).local_table
    raws = scores.alias()
    same = (raws.c.evaluation_id == scores.c.evaluation_id) & (raws.c.benchmark == scores.c.benchmark)
    numbers = (scores.c.evaluation_id, scores.c.benchmark, scores.c.value, raws.c.value, scores.c.stderr)
    rows = session.execute(
        sqlalchemy.select(*numbers, scores.c.samples)
        .join(evaluations, evaluations.c.id == scores.c.evaluation_id)
        .outerjoin(raws, same & (raws.c.task == "") & (raws.c.metric == "raw"))
        .where(*_wanted(evaluations.c, suite, only), scores.c.task == "", scores.c.metric == "value")
    )
    cells: defaultdict[int, dict[str, Cell]] = defaultdict(dict)
    for part in rows.partitions(ROWS_AT_ONCE):
        for evaluation, benchmark, value, raw, stderr, samples in part:
            cells[evaluation][benchmark] = Cell(value, raw, stderr, samples)
    return cells


def _read_costs(session: Session, suite: Suite, only: Collection[int] | None) -> dict[int, Mapping[str, Any]]:
    """What answering took, by evaluation: each benchmark repeats it, so one is enough."""
    rows = session.execute(
        sqlalchemy.select(col(Score.evaluation_id), col(Score.provenance)["infer"]["cost"])
        .join(Evaluation, col(Evaluation.id) == col(Score.evaluation_id))
        .where(
            *_wanted(Evaluation, suite, only),
            col(Score.task) == "",
            col(Score.metric) == "value",
            col(Score.benchmark) == suite.benchmarks[0].name,
        )
    )
    return {evaluation: cost for evaluation, cost in rows if isinstance(cost, dict)}


def _standing(
    row: Row[Any], *, cells: Mapping[str, Cell], cost: Mapping[str, Any], flags: Iterable[Flag], imported_from: str
) -> Standing:
    active = row.facts.get("active_parameters")
    seconds, tokens = _number(cost.get("seconds")), _number(cost.get("tokens_computed"))
    return Standing(
        evaluation=row.id,
        model=row.model,
        revision=row.revision,
        suite=row.suite,
        suite_version=row.suite_version,
        precision=row.precision.value,
        engine=row.engine.value,
        model_type=row.model_type,
        weight_type=row.weight_type,
        base_model=row.base_model,
        architecture=row.architecture,
        parameters=row.parameters,
        licence=row.licence,
        chat_template=row.chat_template,
        on_hub=row.folder is None and row.facts.get("on_hub") is not False,
        average=row.average,
        cells=cells,
        document_limit=row.document_limit,
        submitted_at=row.submitted_at,
        ended_at=row.ended_at,
        active_parameters=active if isinstance(active, int) else row.parameters,
        device_seconds=_number(cost.get("device_seconds")),
        tokens_per_second=_number(tokens / seconds) if tokens and seconds else None,
        flags=(*(Flagging(flag.kind.value, flag.reason, flag.link) for flag in flags), *_flags_of_source(row.facts)),
        visibility=row.visibility,
        team=row.team,
        person=row.person_id,
        imported_from=imported_from,
    )


def _flags_of_source(facts: Mapping[str, Any]) -> Iterable[Flagging]:
    """What the operators of an imported row's board warn of; it is said of that row alone."""
    for flag in facts.get("flags_of_source") or ():
        yield Flagging(str(flag["kind"]), str(flag["reason"]), str(flag.get("link") or ""))


def _number(value: Any) -> float | None:
    """An amount that can be counted with; what an imported row calls one may be anything."""
    return float(value) if isinstance(value, int | float) and 0 <= value < MOST_OF_ANYTHING else None
