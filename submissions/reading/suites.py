"""Suites as records, how many evaluations each has, and which of them a board shows by itself."""

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy
from sqlalchemy import func
from sqlmodel import Session, col, select

from orchestrator.lifecycle import EvaluationState, RerunState
from orchestrator.reruns.coverage import covered_by
from orchestrator.suite_versions import count_finished, find_version, versions_of
from orchestrator.suites import Suite, SuiteBenchmark
from orchestrator.tables import Evaluation, Rerun, ShownVersion, SuiteVersion
from submissions.records import SuiteBenchmarkRecord, SuiteRecord, SuiteVersionRecord


def suite_record(suite: Suite, *, versions: Sequence[SuiteVersionRecord] = ()) -> SuiteRecord:
    return SuiteRecord(
        name=suite.name,
        version=suite.version,
        title=suite.title,
        description=suite.description,
        harness=suite.harness,
        chat_template=suite.chat_template,
        benchmarks=[
            SuiteBenchmarkRecord(
                name=benchmark.name,
                description=benchmark.description,
                tasks=list(benchmark.tasks),
                num_fewshot=benchmark.num_fewshot,
                normalised=benchmark.normalised,
            )
            for benchmark in suite.benchmarks
        ],
        known_problems=list(suite.known_problems),
        versions=list(versions),
    )


def shown_and_known(session: Session, suite: Suite) -> tuple[str, tuple[str, ...]]:
    """The version that the board shows and the names of all versions, the latest last; without what they say."""
    shown = (
        select(ShownVersion.version)
        .where(ShownVersion.suite == suite.name)
        .order_by(col(ShownVersion.id).desc())
        .limit(1)
        .scalar_subquery()
    )
    rows = session.execute(
        sqlalchemy.select(col(SuiteVersion.version), shown)
        .where(col(SuiteVersion.suite) == suite.name)
        .order_by(col(SuiteVersion.added_at), col(SuiteVersion.version))
    ).all()
    return (rows[0][1] if rows and rows[0][1] else suite.version), tuple(version for version, _ in rows)


def version_records(session: Session, suite: Suite) -> list[SuiteVersionRecord]:
    """Every version of the suite with the evaluations that have an average under it, the latest first.

    Those that plans led to, all of them given up before anything was scored, are nobody's any more.
    """
    versions = versions_of(session, suite)
    counts = count_finished(session, suite.name)
    covered = covered_by(session, suite.name, versions.shown)
    given_up = _given_up(session, suite.name) - set(counts) - {versions.shown, suite.version}
    names = dict.fromkeys([*(row.version for row in reversed(versions.known)), versions.shown])
    records = {row.version: row.record for row in versions.known}
    return [
        SuiteVersionRecord(
            version=name,
            harness=str(records.get(name, {}).get("harness", suite.harness)),
            is_shown=name == versions.shown,
            evaluations=counts.get(name, 0),
            covered=None if name == versions.shown else covered.get(name, 0),
        )
        for name in names
        if name not in given_up
    ]


def _given_up(session: Session, suite: str) -> set[str]:
    """Versions that there were plans for, of which none is left."""
    plans = session.exec(select(Rerun.to_version, Rerun.state).where(Rerun.suite == suite)).all()
    return {version for version, _ in plans} - {version for version, state in plans if state != RerunState.ABANDONED}


def counting_benchmark(
    session: Session, evaluation_id: int, benchmark: str, *, suites: Mapping[str, Suite]
) -> SuiteBenchmark | None:
    """What an evaluation's suite says of a benchmark, in its own version; None where that was never recorded."""
    evaluation = session.get(Evaluation, evaluation_id)
    if evaluation is None:
        return None
    suite = find_version(session, suites, evaluation.suite, evaluation.suite_version)
    if suite is None:
        return None
    return next((found for found in suite.benchmarks if found.name == benchmark), None)


def count_by_suite(session: Session, *states: EvaluationState) -> dict[str, int]:
    """Evaluations in these states for each suite, one for each submission; without any, the finished ones."""
    counted = session.exec(
        select(Evaluation.suite, func.count(func.distinct(Evaluation.submission_id)))
        .where(col(Evaluation.state).in_(states or [EvaluationState.FINISHED]))
        .group_by(col(Evaluation.suite))
    )
    return dict(counted.all())


def suite_to_show(session: Session, suites: Iterable[str]) -> str:
    """The suite of a board when none is named: the one with most scores, else the one with most to come."""
    finished = count_by_suite(session)
    unfinished = count_by_suite(session, *(state for state in EvaluationState if not state.is_final))
    return max(suites, key=lambda name: (finished.get(name, 0), unfinished.get(name, 0), name), default="")
