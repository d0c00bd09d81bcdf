"""Gives up attempts whose lease has ended, so that their jobs are queued again, and forgets workers long gone.

A lease proves nothing while the hub itself could not hear: after its own start, and after the broker or the database
was away, it listens for one lease before it gives up anything (`Listening`).
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, delete, update
from sqlmodel import col, exists, select

from orchestrator import arrows, breaker, db, jobs
from orchestrator.budgets import Budgets
from orchestrator.lifecycle import JobState
from orchestrator.tables import Attempt, Health, Job, Worker
from orchestrator.wire import Mode

log = logging.getLogger(__name__)

FORGOTTEN_AFTER = timedelta(days=7)


@dataclass
class Listening:
    """Since when heartbeats could have reached the hub without a break."""

    since: datetime

    def interrupted(self, now: datetime) -> None:
        self.since = now

    def long_enough(self, now: datetime, lease: timedelta) -> bool:
        return now - self.since >= lease


def reap(engine: Engine, now: datetime, *, budgets: Budgets | None = None) -> int:
    """Give up every attempt whose lease has ended, each in a transaction of its own; returns how many."""
    with db.session(engine, read_only=True) as session:
        overdue = session.exec(
            select(Attempt.id, Attempt.worker, Job.id)
            .join(Job, col(Job.id) == Attempt.job_id)
            .where(col(Attempt.ended_at).is_(None), Attempt.lease_until < now)
        ).all()
    reaped = 0
    for attempt, worker, job in overdue:
        sentence = f"Worker {worker} was not heard of until the lease ended."
        with db.session(engine) as session:
            if jobs.expire(session, attempt, sentence=sentence, budgets=budgets, now=now):
                log.warning("attempt_expired attempt=%s job=%s worker=%s", attempt, job, worker)
                reaped += 1
    return reaped


def unwind(engine: Engine, now: datetime, *, lease: timedelta, budgets: Budgets | None = None) -> int:
    """Bring back what lies further ahead than this hub puts anything: its clock was set back. Returns how much it was.

    Else a lost attempt would hold its job, and a pause last, until the clock has caught up.
    """
    longest = timedelta(seconds=(budgets or Budgets()).longest_pause_seconds)
    ahead = update(Job).where(col(Job.state) == JobState.QUEUED, col(Job.not_before) > now + longest)
    with db.session(engine) as session:
        found = arrows.shorten_leases(session, to=now + lease)
        found += session.connection().execute(ahead.values(not_before=None)).rowcount
        found += breaker.shorten_holds(session, now=now)
    if found:
        log.warning("clock_was_set_back rows=%d", found)
    return found


def forget_workers(engine: Engine, now: datetime) -> int:
    """Remove workers that were not heard of for a week and hold nothing; returns how many.

    One that an operator drained or paused is kept: it would come back open.
    """
    holds = exists(select(Attempt.id).where(Attempt.worker == Worker.name, col(Attempt.ended_at).is_(None)))
    statement = delete(Worker).where(
        col(Worker.last_heartbeat) < now - FORGOTTEN_AFTER, ~holds, col(Worker.mode) == Mode.OPEN
    )
    with db.session(engine) as session:
        forgotten = session.connection().execute(statement).rowcount
        gone = col(Health.worker).not_in(select(Worker.name)) & col(Health.worker).not_in(select(Worker.host))
        session.connection().execute(delete(Health).where(gone))
        return forgotten
