"""Tells each engine worker which models it is likely to compute next, so that it fetches them before it is free.

A forecast promises nothing and claims nothing: the scheduler decides anew when a slot is free, and a forecast that is
lost or wrong costs at most a download.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Engine
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from orchestrator import db
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.notes import FORECAST_SECONDS
from orchestrator.orders import describe_model, weights_revision
from orchestrator.roster import load_workers, need_of
from orchestrator.scheduling.places import Policy, QueuedJob
from orchestrator.scheduling.scheduler import forecast
from orchestrator.tables import Evaluation, Job, Submission
from orchestrator.wire import Forecast, Model, Stage

EVERY = timedelta(seconds=3)
REPEAT_AFTER = timedelta(seconds=FORECAST_SECONDS / 2)
MOST_JOBS = 1000
"""Jobs looked at: those behind them are not next for anyone."""

Tell = Callable[[str, Forecast], None]
"""Leaves a forecast for a worker: `orchestrator.notes.leave_forecast` with its app."""


@dataclass
class Forecaster:
    engine: Engine
    tell: Tell
    policy: Policy
    looked_at: datetime | None = None
    told: dict[str, tuple[Forecast, datetime]] = field(default_factory=dict)

    def look(self, now: datetime) -> None:
        """Tell every worker whose forecast is a new one, or old enough to be forgotten soon.

        Raises:
            BrokerLost: the broker is away; it is told at a later round.
        """
        if self.looked_at is not None and timedelta(0) <= now - self.looked_at < EVERY:
            return
        self.looked_at = now
        with db.session(self.engine, read_only=True) as session:
            models = load_coming(session)
            workers = load_workers(session, now=now)
        found = forecast([job for job, _ in models], workers, self.policy, now)
        # Launched workers have new names each time.
        self.told = {worker: said for worker, said in self.told.items() if worker in found}
        by_job = {job.id: model for job, model in models}
        for worker, jobs in found.items():
            # A folder is read where it lies. One model may be wanted by several evaluations.
            wanted = dict.fromkeys(by_job[job.id] for job in jobs if by_job[job.id].folder is None)
            note = Forecast(models=tuple(wanted))
            before, at = self.told.get(worker, (Forecast(), None))
            if note != before or (wanted and at is not None and now - at >= REPEAT_AFTER):
                self.tell(worker, note)
                self.told[worker] = note, now


def load_coming(session: Session) -> list[tuple[QueuedJob, Model]]:
    """Infer jobs that are queued, or wait for the rest of their benchmarks, with their models; the urgent ones first.

    One prepared benchmark shows that the model's config and tokenizer are sound: before that, nothing large is fetched.
    """
    other = aliased(Job)
    prepared = select(other.id).where(
        col(other.evaluation_id) == col(Job.evaluation_id),
        col(other.stage) == Stage.PREPARE,
        col(other.state) == JobState.COMPLETED,
    )
    first = (
        select(Job, Evaluation, Submission)
        .join(Evaluation, col(Evaluation.id) == Job.evaluation_id)
        .join(Submission, col(Submission.id) == Evaluation.submission_id)
        # What is read with somebody's own token is fetched for their jobs alone: no forecast carries one.
        .where(Job.stage == Stage.INFER, col(Submission.own_token).is_(False))
        .order_by(col(Job.turn_at), col(Job.evaluation_id), col(Job.id))
        .limit(MOST_JOBS)
    )
    queued = first.where(Job.state == JobState.QUEUED)
    # By the evaluation's state, so that of a long queue only those under way are read.
    blocked = first.where(
        Evaluation.state == EvaluationState.PREPARING, Job.state == JobState.BLOCKED, prepared.exists()
    )
    rows = sorted(
        [*session.exec(queued), *session.exec(blocked)],
        key=lambda row: (row[0].turn_at or row[0].created_at, row[0].evaluation_id, row[0].id or 0),
    )
    found = []
    for job, evaluation, submission in rows[:MOST_JOBS]:
        assert job.id is not None
        coming = QueuedJob(
            id=job.id,
            evaluation=job.evaluation_id,
            stage=job.stage,
            engine=evaluation.engine,
            created_at=job.created_at,
            turn_at=job.turn_at,
            not_before=job.not_before,
            device_type=job.identity.get("device_type"),
            weights=weights_revision(submission.weight_type, submission.revision, submission.base_revision),
            need=need_of(submission.facts, submission.precision),
            longest=job.longest or submission.facts.get("context_limit"),
        )
        found.append((coming, describe_model(submission)))
    return found
