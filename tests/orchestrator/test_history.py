"""What a round of the hub costs beside a long history, in steps of SQLite's own machine: a scan shows in them."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event, insert

from orchestrator import db
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.reaper import reap
from orchestrator.roster import DEFAULT_POLICY
from orchestrator.scheduling.forecasts import Forecaster
from orchestrator.tables import Attempt, Evaluation, Event, Job, Submission
from orchestrator.wire import EngineFamily, Precision, Stage
from tests.migrated import migrated_sqlite
from tests.orchestrator.yard import Yard

FINISHED = 200
STAGES = (Stage.PREPARE, Stage.PREPARE, Stage.INFER, Stage.SCORE, Stage.SCORE)
COUNTED = 10
"""Steps between two counts."""


def finish_many(engine: Engine, now: datetime) -> None:
    """Evaluations of long ago, with jobs, attempts and events as they would have left them."""
    first, old = 100, now - timedelta(days=90)
    numbers = range(first, first + FINISHED)
    jobs = [(5 * number + place, number, stage) for number in numbers for place, stage in enumerate(STAGES)]
    rows: list[tuple[Any, list[Any]]] = [
        (
            Submission,
            [
                Submission(id=n, model="org/m", revision=f"{n:040x}", precision=Precision.FLOAT32, submitted_at=old)
                for n in numbers
            ],
        ),
        (
            Evaluation,
            [
                Evaluation(
                    id=n, submission_id=n, suite="small", suite_version="1", engine=EngineFamily.SCRIPTED,
                    key=f"old-{n}", state=EvaluationState.FINISHED, created_at=old, ended_at=old,
                )
                for n in numbers
            ],
        ),
        (
            Job,
            [
                Job(
                    id=job, evaluation_id=n, stage=stage, benchmark=f"b{job}" if stage is not Stage.INFER else "",
                    state=JobState.COMPLETED, attempt_id=f"old-{job}", turn_at=old, created_at=old, ended_at=old,
                )
                for job, n, stage in jobs
            ],
        ),
        (
            Attempt,
            [
                Attempt(
                    id=f"old-{job}", job_id=job, worker="engine-1", boot="first", dispatched_at=old, lease_until=old,
                    ended_at=old, outcome="failed" if job % 3 else "completed",
                )
                for job, _, _ in jobs
            ],
        ),
        (Event, [Event(at=old, evaluation_id=n, job_id=job, name="job_completed") for job, n, _ in jobs]),
    ]  # fmt: skip
    with db.session(engine) as session:
        for table, made in rows:
            values = [one.model_dump(exclude={"id"} if table is Event else set()) for one in made]
            session.connection().execute(insert(table), values)


def steps_of_a_round(yard: Yard) -> int:
    """Of giving out, forecasting and looking for ended leases."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    def listen(connection: Any, *others: object) -> None:
        connection.set_progress_handler(count, COUNTED)

    yard.wait(1)
    forecaster = Forecaster(yard.engine, tell=lambda worker, said: None, policy=DEFAULT_POLICY)
    event.listen(yard.engine, "checkout", listen)
    yard.tick()
    forecaster.look(yard.now)
    reap(yard.engine, yard.now)
    event.remove(yard.engine, "checkout", listen)
    return counted * COUNTED


def test_a_rounds_work_in_the_database_does_not_grow_with_finished_history(tmp_path: Path) -> None:
    path = tmp_path / "evalyard.db"
    path.write_bytes(migrated_sqlite())
    yard = Yard(db.make_engine(f"sqlite:///{path}"))
    yard.beat("engine-1")
    yard.beat("harness-1", slots=2)
    for number in range(5):
        yard.submit(revision=f"c{number}")
    yard.tick()  # what is left waits, and is looked at in each round
    before = steps_of_a_round(yard)
    finish_many(yard.engine, yard.now)
    after = steps_of_a_round(yard)
    yard.engine.dispose()
    assert before > 0
    assert after <= 1.1 * before, f"{before} steps before {FINISHED} evaluations had finished, {after} after"
