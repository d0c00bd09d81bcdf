"""Moves every open plan on: compares, makes evaluations again in batches, watches the budget, switches at the goal.

A thread of the control process, beside the one that gives out jobs: comparing takes long. Several control processes may
do it at once; each step is one transaction that looks again, so one of them makes it. Killed at any moment, the next
look goes on.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlmodel import Session, col, func, select

from orchestrator import db
from orchestrator.artifacts import ArtifactStore
from orchestrator.lifecycle import EvaluationState, JobState, RerunState
from orchestrator.reruns import planning
from orchestrator.reruns.choosing import choose, left
from orchestrator.reruns.coverage import RUNNING_STATES, device_seconds, open_jobs, read_progress
from orchestrator.reruns.filling import Versions, fill
from orchestrator.reruns.findings import Findings, classes_of, of_evaluation, read_findings
from orchestrator.reruns.holding import is_spent
from orchestrator.reruns.switching import switch_when_covered
from orchestrator.suites import Suite
from orchestrator.tables import Evaluation, Job, Rerun
from orchestrator.wire import Stage

log = logging.getLogger(__name__)

AT_ONCE = 100
"""Evaluations of a plan that are under way at once: new submissions see a short queue, whatever a plan covers."""
BATCH = 10
"""Evaluations of one transaction: few enough that no report waits long for it."""
PAUSE_SECONDS = 2.0
CLASSES_EVERY = timedelta(seconds=30)


@dataclass
class Runner:
    """What a look at the open plans needs."""

    engine: Engine
    suites: Mapping[str, Suite]
    store: ArtifactStore
    at_once: int = AT_ONCE
    stopping: threading.Event = field(default_factory=threading.Event)
    looked_at: dict[int, datetime] = field(default_factory=dict)
    """When it last looked which classes of sheets a plan has."""
    chose_none_at: dict[int, datetime] = field(default_factory=dict)

    def run(self, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        """Look again and again until told to stop; whatever goes wrong is logged, and the next look starts afresh."""
        while not self.stopping.is_set():
            busy = False
            try:
                busy = self.look(datetime.now(UTC))
            except OperationalError as error:
                log.warning("database_away error=%s", str(error.orig).strip())
            except Exception:
                log.exception("rerun_failed")
            self.stopping.wait(0.0 if busy else pause_seconds)

    def look(self, now: datetime) -> bool:
        """One step of every open plan; True when one of them has another step to do at once."""
        with db.session(self.engine, read_only=True) as session:
            plans = session.exec(
                select(Rerun.id, Rerun.state)
                .where(col(Rerun.state).in_([RerunState.PLANNING, RerunState.RUNNING]))
                .order_by(col(Rerun.id))
            ).all()
        busy = False
        for plan, state in plans:
            if plan is None or self.stopping.is_set():
                continue
            look = plan not in self.looked_at or not timedelta(0) <= now - self.looked_at[plan] < CLASSES_EVERY
            if planning.advance(self.engine, self.store, plan, now=now, look_for_classes=look):
                busy = True
                continue
            if look:
                self.looked_at[plan] = now
            if state is RerunState.PLANNING:
                continue
            busy |= self._go_on(plan, now=now)
        return busy

    def _go_on(self, rerun: int, *, now: datetime) -> bool:
        with db.session(self.engine) as session:
            plan = _running(session, rerun)
            if plan is None:
                return False
            plan.spent_seconds = device_seconds(session, plan, now=now)
            session.add(plan)
        made = self._make_some(rerun, now=now)
        with db.session(self.engine) as session:
            plan = _running(session, rerun)
            if plan is None:
                return False
            progress = read_progress(session, plan, now=now)
            switched = switch_when_covered(session, self.suites, plan, progress, now=now)
            if not made:
                _end(session, plan, now=now)
        if switched:
            log.info("switched suite=%s from=%s to=%s rerun=%s", *switched, rerun)
        return made > 0

    def _make_some(self, rerun: int, *, now: datetime) -> int:
        """Take up the next evaluations, as many as may be under way at once; returns how many."""
        with db.session(self.engine, read_only=True) as session:
            plan = session.exec(select(Rerun).where(Rerun.id == rerun)).one()
            room = self.at_once - _under_way(session, plan)
            if room <= 0 or (is_spent(plan) and self._chose_none_lately(rerun, now=now)):
                return 0
            findings = read_findings(session, plan)
            waiting = left(session, plan)
            chosen = choose(session, plan, waiting, findings=findings, most=min(room, BATCH * 5))
            if not chosen:
                self.chose_none_at[rerun] = now
                return 0
            versions = Versions(
                planning.suite_at(session, plan, plan.from_version), planning.suite_at(session, plan, plan.to_version)
            )
        made = 0
        for begin in range(0, len(chosen), BATCH):
            made += self._fill(rerun, chosen[begin : begin + BATCH], findings, versions, now=now)
        return made

    def _chose_none_lately(self, rerun: int, *, now: datetime) -> bool:
        """Past its budget a plan is searched for what needs no device: all of it, which need not be done each time."""
        at = self.chose_none_at.get(rerun)
        return at is not None and timedelta(0) <= now - at < CLASSES_EVERY

    def _fill(
        self, rerun: int, chosen: list[tuple[int, int]], findings: Findings, versions: Versions, *, now: datetime
    ) -> int:
        try:
            with db.session(self.engine) as session:
                plan = _running(session, rerun)
                if plan is None:
                    return 0
                classes = classes_of(session, [old for old, _ in chosen])
                return sum(
                    fill(
                        session,
                        plan,
                        session.exec(select(Evaluation).where(Evaluation.id == old)).one(),
                        versions=versions,
                        findings=of_evaluation(findings, classes[old]),
                        position=position,
                        now=now,
                    )
                    for old, position in chosen
                )
        except IntegrityError:
            # Somebody submitted one of these under the new version at this moment. One by one, only that one waits.
            if len(chosen) == 1:
                log.warning("rerun_met_a_submission rerun=%s evaluation=%s", rerun, chosen[0][0])
                return 0
            return sum(self._fill(rerun, [one], findings, versions, now=now) for one in chosen)


def _running(session: Session, rerun: int) -> Rerun | None:
    """The plan, locked, as long as it runs."""
    row = session.exec(
        select(Rerun).where(Rerun.id == rerun).with_for_update().execution_options(populate_existing=True)
    ).first()
    return row if row is not None and row.state is RerunState.RUNNING else None


def _under_way(session: Session, rerun: Rerun) -> int:
    states = [EvaluationState.QUEUED, *RUNNING_STATES]
    counted = select(func.count()).where(Evaluation.rerun_id == rerun.id, col(Evaluation.state).in_(states))
    return session.exec(counted).one()


def _end(session: Session, rerun: Rerun, *, now: datetime) -> None:
    """Finish a plan that has nothing left; pause one that only its budget keeps from going on."""
    if is_spent(rerun) and not _held(session, rerun) and (left(session, rerun) or open_jobs(session, rerun)):
        rerun.state = RerunState.PAUSED
        rerun.sentence = (
            f"The budget of {(rerun.budget_seconds or 0) / 3600:g} device-hours is used up. "
            f"evalyard rerun start {rerun.id} --budget N goes on."
        )
        session.add(rerun)
        return
    if left(session, rerun) or _under_way(session, rerun):
        return
    rerun.state, rerun.ended_at, rerun.sentence = RerunState.FINISHED, now, ""
    session.add(rerun)


def _held(session: Session, rerun: Rerun) -> int:
    """Jobs of the plan that workers have, or that need no device and so go on."""
    busy = (col(Job.state).in_([JobState.DISPATCHED, JobState.RUNNING])) | (
        (col(Job.state) == JobState.QUEUED) & (col(Job.stage) != Stage.INFER)
    )
    counted = (
        select(func.count())
        .select_from(Job)
        .join(Evaluation, col(Evaluation.id) == Job.evaluation_id)
        .where(Evaluation.rerun_id == rerun.id, busy)
    )
    return session.exec(counted).one()


def start_runner(
    engine: Engine, suites: Mapping[str, Suite], store: ArtifactStore, *, stopping: threading.Event
) -> threading.Thread:
    """A runner in a thread of its own, until told to stop."""
    thread = threading.Thread(target=Runner(engine, suites, store, stopping=stopping).run, name="reruns", daemon=True)
    thread.start()
    return thread
