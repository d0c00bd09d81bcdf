"""Suites as records, how many evaluations each has, and which of them a board shows by itself."""

from collections.abc import Iterable, Mapping

from sqlalchemy import func
from sqlmodel import Session, col, select

from orchestrator.lifecycle import EvaluationState
from orchestrator.suites import Suite, SuiteBenchmark
from orchestrator.tables import Evaluation
from submissions.records import SuiteBenchmarkRecord, SuiteRecord


def suite_record(suite: Suite) -> SuiteRecord:
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
    )


def counting_benchmark(
    session: Session, evaluation_id: int, benchmark: str, *, suites: Mapping[str, Suite]
) -> SuiteBenchmark | None:
    """What an evaluation's suite says of a benchmark; None once the suite is another version or gone."""
    evaluation = session.get(Evaluation, evaluation_id)
    suite = suites.get(evaluation.suite) if evaluation else None
    if evaluation is None or suite is None or suite.version != evaluation.suite_version:
        return None
    return next((found for found in suite.benchmarks if found.name == benchmark), None)


def count_by_suite(session: Session, *states: EvaluationState) -> dict[str, int]:
    """Evaluations in these states for each suite; without any, the finished ones."""
    counted = session.exec(
        select(Evaluation.suite, func.count())
        .where(col(Evaluation.state).in_(states or [EvaluationState.FINISHED]))
        .group_by(col(Evaluation.suite))
    )
    return dict(counted.all())


def suite_to_show(session: Session, suites: Iterable[str]) -> str:
    """The suite of a board when none is named: the one with most scores, else the one with most to come."""
    finished = count_by_suite(session)
    unfinished = count_by_suite(session, *(state for state in EvaluationState if not state.is_final))
    return max(suites, key=lambda name: (finished.get(name, 0), unfinished.get(name, 0), name), default="")
