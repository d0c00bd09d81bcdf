"""One round of giving queued jobs to free workers: load, plan, split, claim, send after the commit of the claims.

What it reads does not grow with finished work: only waiting jobs, open attempts, workers and speeds. An order that
cannot be sent is taken back at once; one that is lost on its way is found by its lease.
"""

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from orchestrator import arrows, claims, db, evaluations, jobs
from orchestrator.broker import BrokerError, BrokerLost, MessageTooLarge
from orchestrator.dossiers import Dossier, open_dossier, open_dossiers
from orchestrator.errors import EvalyardError
from orchestrator.lent_tokens import lend
from orchestrator.lifecycle import JobState
from orchestrator.orders import NoOrder, write_order
from orchestrator.results import Unscorable
from orchestrator.roster import DEFAULT_POLICY, load_queued, load_speeds, load_workers
from orchestrator.scheduling.estimates import Speeds
from orchestrator.scheduling.overlaps import note_overlaps
from orchestrator.scheduling.places import Policy, QueuedJob, WorkerView, hopeless, is_live
from orchestrator.scheduling.room import Assignment
from orchestrator.scheduling.scheduler import Round, plan_round
from orchestrator.scheduling.slices import Split, split, splits
from orchestrator.sealing import Sealer
from orchestrator.shares import Share, first_within_share, share_of, within_share
from orchestrator.suites import Suite
from orchestrator.together import together
from orchestrator.wire import FailureKind, Order, Stage

log = logging.getLogger(__name__)

FIRST: dict[tuple[Stage, ...], int] = {(Stage.CANARY, Stage.INFER): 200, (Stage.PREPARE, Stage.SCORE): 20}
"""Queued jobs of each kind of worker that a round reads at least: where an infer job fits depends on its model."""

BATCH = 16
"""Claims of one transaction: few enough that no heartbeat waits long for it."""

Send = Callable[[Sequence[tuple[str, Order]]], None]
"""Puts orders into workers' queues: `orchestrator.broker.send_orders` with its app."""


@dataclass(frozen=True)
class Dispatcher:
    """What a round needs beside the database."""

    engine: Engine
    suites: Mapping[str, Suite]
    send: Send
    lease_seconds: float = 60.0
    policy: Policy = DEFAULT_POLICY
    suites_folder: Path | None = None
    sealer: Sealer | None = None
    """Opens people's Hub tokens, which some orders lend to a worker; None where there are no accounts."""

    def dispatch(self, now: datetime, *, thorough: bool = True, gives_up: bool = True) -> int:
        """Give out what can be given out; returns how many orders were sent.

        A round that is not `thorough` looks at the head of a long queue alone: it follows a report, and many may come
        in a second. What stands behind jobs that fit nowhere is found by the next thorough one. Without `gives_up` no
        job fails for having been refused: workers that might take it may not have been heard yet.

        Raises:
            BrokerLost: the broker is away; nothing stays claimed for it.
        """
        planned, workers, speeds, share = self._plan(now, thorough=thorough, gives_up=gives_up)
        most_gpus = share.room if share is not None else None
        if self._split(splits(planned, workers, self.policy, now, speeds=speeds, most_gpus=most_gpus), now=now):
            planned, *_ = self._plan(now, thorough=thorough, gives_up=gives_up)
        sent = 0
        for start in range(0, len(planned.assignments), BATCH):
            # In the order in which every transaction that locks several evaluations locks them.
            batch = sorted(planned.assignments[start : start + BATCH], key=lambda one: (one.job.evaluation, one.job.id))
            if orders := self._claim(batch, now=now):
                sent += self._send(orders, now=now)
        return sent

    def _plan(
        self, now: datetime, *, thorough: bool, gives_up: bool
    ) -> tuple[Round, list[WorkerView], Speeds, Share | None]:
        """The round that is due, after giving up what no worker will take.

        Of a long queue only the first are read, for as many slots as are free. Where those cannot fill the slots, all
        are: what stands first may fit nowhere.
        """
        with db.session(self.engine, read_only=True) as session:
            everyone = load_workers(session, now=now)
            share = share_of(everyone, self.policy, now)
            everyone = within_share(everyone, share)
            speeds = load_speeds(session)
            free = self._free(everyone, now)
            heads = {
                stages: load_queued(session, now=now, stages=stages, most=_most(stages, slots))
                for stages, slots in free.items()
                if slots
            }
            queued, workers = note_overlaps(session, [job for head in heads.values() for job in head], everyone)
        if gives_up:
            queued = self._give_up_hopeless(queued, workers, now=now)
        planned = plan_round(queued, workers, self.policy, now, speeds=speeds)
        taken = {stages: sum(one.devices for one in planned.assignments if one.job.stage in stages) for stages in heads}
        longer = [
            stages
            for stages, head in heads.items()
            if thorough and len(head) == _most(stages, free[stages]) and taken[stages] < free[stages]
        ]
        if longer:
            with db.session(self.engine, read_only=True) as session:
                for stages in longer:
                    heads[stages] = load_queued(session, now=now, stages=stages)
                queued, workers = note_overlaps(session, [job for head in heads.values() for job in head], everyone)
            if gives_up:
                queued = self._give_up_hopeless(queued, workers, now=now)
            planned = plan_round(queued, workers, self.policy, now, speeds=speeds)
        kept = first_within_share(planned.assignments, planned.reserved, share)
        return planned._replace(assignments=kept), workers, speeds, share

    def _free(self, workers: Iterable[WorkerView], now: datetime) -> dict[tuple[Stage, ...], int]:
        """Free slots of each kind of worker, with the stages that it takes."""
        live = [worker for worker in workers if is_live(worker, self.policy, now)]
        return {
            (Stage.CANARY, Stage.INFER): sum(worker.free_slots for worker in live if worker.kind == "engine"),
            (Stage.PREPARE, Stage.SCORE): sum(worker.free_slots for worker in live if worker.kind == "harness"),
        }

    def _give_up_hopeless(
        self, queued: list[QueuedJob], workers: list[WorkerView], *, now: datetime
    ) -> list[QueuedJob]:
        """The jobs that some worker may take; those that every fitting one has refused fail, with what each said."""
        lost = [job for job in queued if job.refused_by and hopeless(job, workers, self.policy, now)]
        for job in lost:
            with db.session(self.engine) as session:
                jobs.give_up_refused(session, job.id, by=hopeless(job, workers, self.policy, now), now=now)
        return [job for job in queued if job not in lost] if lost else queued

    def _split(self, wanted: Iterable[Split], *, now: datetime) -> bool:
        done = False
        for one in wanted:
            with db.session(self.engine) as session:
                if split(session, one, now=now):
                    log.info("job_split job=%s evaluation=%s into=%s", one.job.id, one.job.evaluation, one.into)
                    done = True
        return done

    def _claim(self, chosen: Sequence[Assignment], *, now: datetime) -> list[tuple[str, Order]]:
        """Claim these jobs in one transaction; the orders that are to be sent, with their workers."""
        try:
            orders = []
            with db.session(self.engine) as session:
                workers = claims.lock_workers(session, {one.worker.name for one in chosen}, now=now)
                dossiers = open_dossiers(session, {one.job.evaluation for one in chosen})
                # Alone each write is made at once, so that one that comes to nothing is no fault.
                with together(session) if len(chosen) > 1 else nullcontext():
                    for one in chosen:
                        dossier = dossiers.get(one.job.evaluation)
                        order = self._claim_one(session, one, workers=workers, dossier=dossier, now=now)
                        if order is not None:
                            orders.append((one.worker.name, order))
            return orders
        except OperationalError:
            raise
        except Exception:
            if len(chosen) > 1:
                return [order for one in chosen for order in self._claim([one], now=now)]
            # A fault of the hub itself. Without this the one job would keep all others waiting, at every round.
            job = chosen[0].job
            log.exception("order_not_written job=%s evaluation=%s", job.id, job.evaluation)
            sentence = "The hub could not write the order; its log says why. Report this as a bug, then retry."
            with db.session(self.engine) as session:
                if (dossier := open_dossier(session, job.evaluation)) is not None:
                    self._give_up(session, dossier, job.id, kind=FailureKind.HARNESS, sentence=sentence, now=now)
            return []

    def _claim_one(
        self,
        session: Session,
        assignment: Assignment,
        *,
        workers: dict[str, claims.Capacity],
        dossier: Dossier | None,
        now: datetime,
    ) -> Order | None:
        """Claim the job and write its order; None when there is nothing to send."""
        planned, worker, devices = assignment
        job = dossier.job(planned.id) if dossier is not None else None
        if dossier is None or job is None or job.state is not JobState.QUEUED:
            return None
        attempt = uuid.uuid4().hex
        try:
            order = write_order(
                session,
                dossier,
                job,
                attempt=attempt,
                device_type=worker.device_type,
                devices=devices,
                suites=self.suites,
                suites_folder=self.suites_folder,
                lease_seconds=self.lease_seconds,
            )
            if dossier.submission.own_token:
                order = lend(session, self.sealer, order, submission=dossier.submission, worker=worker.name)
        except EvalyardError as error:
            kind = error.kind if isinstance(error, NoOrder | Unscorable) else FailureKind.SUITE
            self._give_up(session, dossier, planned.id, kind=kind, sentence=str(error), now=now)
            return None
        claimed = claims.claim(
            session,
            claims.Claim(job=planned.id, attempt=attempt, worker=worker.name, boot=worker.boot, devices=devices),
            workers=workers,
            dossier=dossier,
            identity=order.work.identity if order.work.stage is Stage.INFER else None,
            lease=timedelta(seconds=self.lease_seconds),
            now=now,
        )
        return order if claimed else None

    def _send(self, orders: Sequence[tuple[str, Order]], *, now: datetime) -> int:
        """Send what was claimed; what cannot be sent is taken back, and what never can be fails."""
        try:
            self.send(orders)
        except BrokerLost:
            for _, unsent in orders:
                self._take_back(unsent, now=now)
            raise
        except BrokerError as error:
            if len(orders) > 1:
                return sum(self._send([one], now=now) for one in orders)
            for worker, order in orders:
                log.error("order_not_sent worker=%s sentence=%s", worker, error)
                if isinstance(error, MessageTooLarge):
                    self._fail_unsent(order, sentence=str(error), now=now)
                else:
                    self._take_back(order, now=now)
            return 0
        for worker, order in orders:
            log.info(
                "order_sent attempt=%s job=%s evaluation=%s stage=%s worker=%s devices=%s",
                order.attempt, order.job, order.evaluation, order.work.stage.value, worker, order.devices,
            )  # fmt: skip
        return len(orders)

    def _take_back(self, order: Order, *, now: datetime) -> None:
        with db.session(self.engine) as session:
            jobs.take_back(session, order.attempt, sentence="The order could not be sent.", now=now)

    def _fail_unsent(self, order: Order, *, sentence: str, now: datetime) -> None:
        """End a job whose order can never be sent: taken back, it would be claimed again at once, for ever."""
        with db.session(self.engine) as session:
            jobs.give_up(session, order.attempt, failure=FailureKind.HARNESS, sentence=sentence, now=now)

    def _give_up(
        self, session: Session, dossier: Dossier, job: int, *, kind: FailureKind, sentence: str, now: datetime
    ) -> None:
        row = dossier.job(job)
        if row is not None and arrows.fail_waiting(session, row, failure=kind, sentence=sentence, now=now):
            evaluations.advance(session, dossier, now=now)


def _most(stages: tuple[Stage, ...], free: int) -> int:
    """How many queued jobs of these stages a round reads for so many free slots."""
    return max(FIRST[stages], 2 * free)
