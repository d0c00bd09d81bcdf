"""A queue of evaluations that wait, as intake would make them, and what the database says afterwards of a run."""

import bisect
from collections import defaultdict, deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Engine, func, insert
from sqlmodel import col, select

from orchestrator import arrows, db
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.suites import load_suites
from orchestrator.tables import Attempt, Evaluation, Event, Job, Submission
from orchestrator.wire import EngineFamily, Precision, Stage

SUITE = "demo"
STAGES = {"engine": (Stage.INFER,), "harness": (Stage.PREPARE, Stage.SCORE)}
"""By the kind of worker, with which its name begins."""


class Gap(NamedTuple):
    """A slot of a worker that stood empty between two orders."""

    worker: str
    since: datetime
    until: datetime


def fill(engine: Engine, count: int) -> None:
    """Evaluations of as many models, made in the last hours, with their jobs."""
    now = datetime.now(UTC)
    names = [benchmark.name for benchmark in load_suites(None)[SUITE].benchmarks]
    made = {number: now - timedelta(seconds=count - number) for number in range(1, count + 1)}
    submissions = [
        Submission(
            id=number,
            model=f"org/m{number}",
            revision=f"{number:040x}",
            precision=Precision.BFLOAT16,
            submitter=f"person-{number % 20}",
            submitted_at=at,
        )
        for number, at in made.items()
    ]
    evaluations = [
        Evaluation(
            id=number,
            submission_id=number,
            suite=SUITE,
            suite_version="1",
            engine=EngineFamily.SCRIPTED,
            key=str(number),
            state=EvaluationState.QUEUED,
            created_at=at,
        )
        for number, at in made.items()
    ]
    kinds = (
        (Stage.PREPARE, JobState.QUEUED, names),
        (Stage.INFER, JobState.BLOCKED, [""]),
        (Stage.SCORE, JobState.BLOCKED, names),
    )
    jobs = [
        Job(evaluation_id=number, stage=stage, benchmark=name, state=state, turn_at=at, created_at=at)
        for number, at in made.items()
        for stage, state, parts in kinds
        for name in parts
    ]
    with db.session(engine) as session:
        connection = session.connection()
        connection.execute(insert(Submission), [one.model_dump() for one in submissions])
        connection.execute(insert(Evaluation), [one.model_dump() for one in evaluations])
        connection.execute(insert(Job), [one.model_dump(exclude={"id"}) for one in jobs])
    db.analyze(engine)


def orders(engine: Engine) -> int:
    """How many were given out so far."""
    with db.session(engine, read_only=True) as session:
        return session.exec(select(func.count()).select_from(Attempt)).one()


def together(engine: Engine) -> dict[str, float]:
    """How many moves of each kind share a transaction, on average: they have the same time."""
    names = {"claims": arrows.JOB_CLAIMED, "starts": arrows.JOB_STARTED, "ends": arrows.JOB_COMPLETED}
    found = {}
    with db.session(engine, read_only=True) as session:
        for word, name in names.items():
            statement = select(func.count(), func.count(func.distinct(Event.at))).where(Event.name == name)
            moves, moments = session.exec(statement).one()
            found[word] = moves / max(moments, 1)
    return found


def recorded_gaps(engine: Engine) -> list[Gap]:
    """From the hub's taking note of an attempt's end to its giving out the worker's next one."""
    with db.session(engine, read_only=True) as session:
        attempts = session.exec(select(Attempt.worker, Attempt.dispatched_at, Attempt.ended_at)).all()
    by_worker: dict[str, list[tuple[datetime, bool]]] = defaultdict(list)
    for worker, dispatched, ended in attempts:
        by_worker[worker].append((dispatched, True))
        if ended is not None:
            by_worker[worker].append((ended, False))
    found = []
    for worker, moments in by_worker.items():
        freed: deque[datetime] = deque()
        for at, begins in sorted(moments):
            if not begins:
                freed.append(at)
            elif freed:
                found.append(Gap(worker, freed.popleft(), at))
    return found


def while_jobs_waited(engine: Engine, gaps: Iterable[Gap]) -> dict[str, list[float]]:
    """For each kind of worker, sorted: seconds of the gaps throughout which a job for that kind was queued."""
    starved = {kind: _without_jobs(engine, stages) for kind, stages in STAGES.items()}
    found: dict[str, list[float]] = {kind: [] for kind in STAGES}
    for gap in gaps:
        kind = gap.worker.partition("-")[0]
        # The last time without a job that began before the gap ended.
        last = bisect.bisect_right(starved[kind], (gap.until, gap.until)) - 1
        if last < 0 or starved[kind][last][1] < gap.since:
            found[kind].append(max((gap.until - gap.since).total_seconds(), 0.0))
    return {kind: sorted(seconds) for kind, seconds in found.items()}


def _without_jobs(engine: Engine, stages: tuple[Stage, ...]) -> list[tuple[datetime, datetime]]:
    """The times, from and to, in which no job of these stages was queued."""
    with db.session(engine, read_only=True) as session:
        waiting = session.exec(
            select(func.count()).select_from(Job).where(col(Job.stage).in_(stages), Job.stage == Stage.PREPARE)
        ).one()
        moves = session.exec(
            select(Event.at, Event.name)
            .join(Job, col(Job.id) == Event.job_id)
            .where(
                col(Job.stage).in_(stages),
                col(Event.name).in_([arrows.JOB_QUEUED, arrows.JOB_REQUEUED, arrows.JOB_CLAIMED]),
            )
            .order_by(col(Event.at), col(Event.id))
        ).all()
    found = []
    since = None if waiting else datetime.min.replace(tzinfo=UTC)
    for at, name in moves:
        waiting += -1 if name == arrows.JOB_CLAIMED else 1
        if waiting and since is not None:
            found.append((since, at))
            since = None
        elif not waiting:
            since = since or at
    if since is not None:
        found.append((since, datetime.max.replace(tzinfo=UTC)))
    return found
