"""Classes of sheets: models whose sheets of a benchmark are equal, so that one of them stands for all. Reads."""

from typing import NamedTuple

import sqlalchemy
from sqlmodel import Session, col, func, select

from orchestrator.lifecycle import JobState
from orchestrator.reruns.coverage import is_planned
from orchestrator.reruns.findings import own_class, sheet_class
from orchestrator.tables import Evaluation, Job, Rerun, RerunBenchmark, SuiteVersion
from orchestrator.wire import Stage


class SheetClass(NamedTuple):
    """Evaluations whose sheets of a benchmark are equal but for the model's identity."""

    benchmark: str
    name: str
    evaluations: int
    first: int
    """The first of the evaluations."""


def count_classes(session: Session, rerun: int) -> list[SheetClass]:
    """Every class of sheets that the plan's evaluations have, of benchmarks that both versions have."""
    plan = session.exec(select(Rerun).where(Rerun.id == rerun)).one()
    wanted = _benchmarks(session, plan)
    return [one for one in _count_classes(session, plan) if one.benchmark in wanted]


def _count_classes(session: Session, rerun: Rerun) -> list[SheetClass]:
    # As a table of its own: PostgreSQL takes two mentions of one JSON path for two expressions.
    sheets = (
        select(col(Job.benchmark), col(Job.evaluation_id), sheet_class().label("of"))
        .join(Evaluation, col(Evaluation.id) == Job.evaluation_id)
        .where(
            is_planned(rerun.suite, rerun.from_version),
            col(Job.stage) == Stage.PREPARE,
            col(Job.state) == JobState.COMPLETED,
        )
        .subquery()
        .c
    )
    named = sqlalchemy.func.coalesce(sheets.of, "") != ""
    classes = [
        SheetClass(*row)
        for row in session.execute(
            sqlalchemy.select(sheets.benchmark, sheets.of, func.count(), func.min(sheets.evaluation_id))
            .where(named)
            .group_by(sheets.benchmark, sheets.of)
        )
    ]
    alone = session.execute(sqlalchemy.select(sheets.benchmark, sheets.evaluation_id).where(~named))
    return classes + [SheetClass(benchmark, own_class(evaluation), 1, evaluation) for benchmark, evaluation in alone]


def _benchmarks(session: Session, rerun: Rerun) -> set[str]:
    """Those that both versions have: others have nothing to be compared with."""
    names: list[set[str]] = []
    for version in (rerun.from_version, rerun.to_version):
        row = session.get(SuiteVersion, (rerun.suite, version))
        names.append({one["name"] for one in row.record["benchmarks"]} if row else set())
    return names[0] & names[1]


def next_of_class(session: Session, rerun: Rerun, row: RerunBenchmark) -> int | None:
    """Another evaluation of the class, to stand for it; None after the last."""
    statement = (
        select(Job.evaluation_id)
        .join(Evaluation, col(Evaluation.id) == Job.evaluation_id)
        .where(
            is_planned(rerun.suite, rerun.from_version),
            Job.stage == Stage.PREPARE,
            Job.state == JobState.COMPLETED,
            Job.benchmark == row.benchmark,
            sheet_class() == row.sheet_class,
            col(Job.evaluation_id) > row.evaluation_id,
        )
    )
    return session.exec(statement.order_by(col(Job.evaluation_id)).limit(1)).first()
