"""One round of giving queued jobs to free workers: load, plan, claim each in a transaction, send after its commit.

What it reads does not grow with finished work: only waiting jobs, open attempts and workers. An order that cannot be
sent is taken back at once; one that is lost on its way is found by its lease.
"""

import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, col, select

from orchestrator import arrows, db, evaluations, jobs
from orchestrator.broker import BrokerLost
from orchestrator.errors import EvalyardError
from orchestrator.lifecycle import JobState
from orchestrator.orders import NoOrder, weights_revision, write_order
from orchestrator.overlaps import note_overlaps
from orchestrator.results import Unscorable
from orchestrator.scheduler import Assignment, Policy, QueuedJob, WorkerView, plan, reasons
from orchestrator.suites import Suite
from orchestrator.tables import Attempt, Evaluation, Job, Submission, Worker
from orchestrator.wire import FailureKind, Order, Stage

log = logging.getLogger(__name__)

DEFAULT_POLICY = Policy()

Send = Callable[[str, Order], None]
"""Puts an order into a worker's queue: `orchestrator.broker.send_order` with its app."""


@dataclass(frozen=True)
class Dispatcher:
    """What a round needs beside the database."""

    engine: Engine
    suites: Mapping[str, Suite]
    send: Send
    lease_seconds: float = 60.0
    policy: Policy = DEFAULT_POLICY
    suites_folder: Path | None = None

    def dispatch(self, now: datetime) -> int:
        """Give out what can be given out; returns how many orders were sent.

        Raises:
            BrokerLost: the broker is away; nothing stays claimed for it.
        """
        with db.session(self.engine, read_only=True) as session:
            queued, workers = note_overlaps(session, load_queued(session, now=now), load_workers(session))
            chosen = plan(queued, workers, self.policy, now)
        sent = 0
        for assignment in chosen:
            try:
                order = self._claim(assignment, now=now)
            except OperationalError:
                raise
            except Exception:
                # A fault of the hub itself. Without this the one job would keep all others waiting, at every round.
                log.exception("order_not_written job=%s evaluation=%s", assignment.job.id, assignment.job.evaluation)
                sentence = "The hub could not write the order; its log says why. Report this as a bug, then retry."
                with db.session(self.engine) as session:
                    self._give_up(session, assignment.job, FailureKind.HARNESS, sentence, now=now)
                continue
            if order is None:
                continue
            try:
                self.send(assignment.worker.name, order)
            except BrokerLost:
                with db.session(self.engine) as session:
                    jobs.take_back(session, order.attempt, sentence="The order could not be sent.", now=now)
                raise
            log.info(
                "order_sent attempt=%s job=%s evaluation=%s stage=%s worker=%s",
                order.attempt, order.job, order.evaluation, order.work.stage.value, assignment.worker.name,
            )  # fmt: skip
            sent += 1
        return sent

    def _claim(self, assignment: Assignment, *, now: datetime) -> Order | None:
        """Claim the job and write its order in one transaction; None when there is nothing to send."""
        job, worker = assignment
        attempt = uuid.uuid4().hex
        with db.session(self.engine) as session:
            try:
                order = write_order(
                    session,
                    job.id,
                    attempt=attempt,
                    device_type=worker.device_type,
                    suites=self.suites,
                    suites_folder=self.suites_folder,
                    lease_seconds=self.lease_seconds,
                )
            except (NoOrder, Unscorable) as error:
                self._give_up(session, job, error.kind, str(error), now=now)
                return None
            except EvalyardError as error:
                self._give_up(session, job, FailureKind.SUITE, str(error), now=now)
                return None
            claimed = jobs.claim(
                session,
                jobs.Claim(job=job.id, attempt=attempt, worker=worker.name, boot=worker.boot),
                identity=order.work.identity if order.work.stage is Stage.INFER else None,
                lease=timedelta(seconds=self.lease_seconds),
                now=now,
            )
            if not claimed:
                return None
        return order

    def _give_up(self, session: Session, job: QueuedJob, kind: FailureKind, sentence: str, *, now: datetime) -> None:
        evaluations.lock(session, job.evaluation)
        arrows.fail_waiting(session, job.id, failure=kind, sentence=sentence, now=now)
        evaluations.advance(session, job.evaluation, now=now)


def load_queued(session: Session, *, now: datetime | None = None) -> list[QueuedJob]:
    """Every queued job; with `now`, only those whose pause is over."""
    statement = (
        select(
            Job.id,
            Job.evaluation_id,
            Job.stage,
            Job.created_at,
            Job.priority,
            Job.not_before,
            Job.identity,
            Evaluation.engine,
            Submission.weight_type,
            Submission.revision,
            Submission.base_revision,
        )  # type: ignore[call-overload]  # sqlmodel types selects of up to four columns
        .join(Evaluation, col(Evaluation.id) == Job.evaluation_id)
        .join(Submission, col(Submission.id) == Evaluation.submission_id)
        .where(Job.state == JobState.QUEUED)
    )
    if now is not None:
        statement = statement.where(col(Job.not_before).is_(None) | (col(Job.not_before) <= now))
    failed_on = _failed_on(session)
    return [
        QueuedJob(
            id=row.id,
            evaluation=row.evaluation_id,
            stage=row.stage,
            engine=row.engine,
            created_at=row.created_at,
            priority=row.priority,
            not_before=row.not_before,
            device_type=row.identity.get("device_type") if row.stage is Stage.INFER else None,
            weights=weights_revision(row.weight_type, row.revision, row.base_revision)
            if row.stage is Stage.INFER
            else "",
            failed_on=frozenset(failed_on[row.id]),
        )
        for row in session.exec(statement)
    ]


def _failed_on(session: Session) -> dict[int, set[str]]:
    """Workers on which attempts of the queued jobs failed, by job."""
    found: dict[int, set[str]] = defaultdict(set)
    statement = (
        select(Attempt.job_id, Attempt.worker)
        .join(Job, col(Job.id) == Attempt.job_id)
        .where(Job.state == JobState.QUEUED, col(Attempt.outcome).in_(("failed", "expired")))
    )
    for job, worker in session.exec(statement):
        found[job].add(worker)
    return found


def load_workers(session: Session) -> list[WorkerView]:
    """Every known worker with the evaluations whose jobs it holds."""
    holding: dict[str, list[int]] = defaultdict(list)
    held = (
        select(Attempt.worker, Job.evaluation_id)
        .join(Job, col(Job.id) == Attempt.job_id)
        .where(col(Attempt.ended_at).is_(None))
    )
    for worker, evaluation in session.exec(held):
        holding[worker].append(evaluation)
    return [
        WorkerView(
            name=row.name,
            boot=row.boot,
            kind=_kind(row.kind),
            slots=row.slots,
            last_heartbeat=row.last_heartbeat,
            engine=row.engine_family,
            device_type=row.device_type,
            stopping=row.stopping,
            holding=tuple(holding[row.name]),
            weights=tuple(row.weights or ()),
        )
        for row in session.exec(select(Worker))
    ]


def waiting_reasons(session: Session, now: datetime, *, policy: Policy = DEFAULT_POLICY) -> dict[int, str]:
    """Why each queued job waits, by job id: for the queue page and `evalyard status`."""
    return reasons(*note_overlaps(session, load_queued(session), load_workers(session)), policy, now)


def _kind(kind: str) -> Literal["harness", "engine"]:
    return "engine" if kind == "engine" else "harness"
