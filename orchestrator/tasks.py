"""The Celery tasks of the hub: read a worker's message, apply it in one transaction, ask a stale attempt to stop.

Three lines each in spirit: everything that decides is in `updates` and `heartbeats`. A message that cannot be read is
refused with a logged sentence and never stops the hub.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery
from celery.exceptions import Reject
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from orchestrator import broker, db, jobs
from orchestrator.budgets import Budgets
from orchestrator.heartbeats import apply_heartbeat
from orchestrator.modes import unheard
from orchestrator.suites import Suite
from orchestrator.updates import apply_update
from orchestrator.wire import FailureKind, Heartbeat, Update

log = logging.getLogger(__name__)

DATABASE_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
"""Between tries to apply an update while the database is away; after them it goes back to the broker."""


@dataclass
class Hub:
    """What the control process holds while it runs."""

    app: Celery
    engine: Engine
    suites: Mapping[str, Suite]
    lease: timedelta
    budgets: Budgets = field(default_factory=Budgets)
    heard_at: datetime | None = None
    """When the last message came out of the broker."""
    news: threading.Event = field(default_factory=threading.Event)
    """Set when a report was applied: there may be something to give out."""


def register(hub: Hub) -> None:
    """Add the hub's tasks to its Celery app."""

    # Not shared: Celery would give these tasks, with this hub, to every other app of the process.
    # Acknowledged when applied: an update lost with a killed control process would cost the whole attempt.
    @hub.app.task(name=broker.UPDATE_TASK, acks_late=True, ignore_result=True, shared=False)  # type: ignore[untyped-decorator]
    def update(payload: Any) -> None:
        for pause in (*DATABASE_PAUSES_SECONDS, None):
            try:
                return take_update(hub, payload, now=datetime.now(UTC))
            except OperationalError as error:
                log.warning("database_away error=%s", str(error.orig).strip())
                if pause is None:
                    raise Reject("the database is away", requeue=True) from error
                time.sleep(pause)

    @hub.app.task(name=broker.HEARTBEAT_TASK, ignore_result=True, shared=False)  # type: ignore[untyped-decorator]
    def heartbeat(payload: Any) -> None:
        try:
            take_heartbeat(hub, payload, now=datetime.now(UTC))
        except OperationalError as error:
            # The next heartbeat follows in seconds.
            log.warning("database_away error=%s", str(error.orig).strip())


def take_update(hub: Hub, payload: Any, *, now: datetime) -> None:
    """Apply an update; its sender is asked to stop if its attempt is stale."""
    hub.heard_at = now
    try:
        report = broker.read(Update, payload)
    except broker.UnreadableMessage as error:
        log.error("update_refused attempt=%s sentence=%s", error.attempt, error)
        return
    try:
        with db.session(hub.engine) as session:
            verdict = apply_update(session, report, suites=hub.suites, budgets=hub.budgets, now=now)
    except OperationalError:
        raise
    except Exception:
        # A fault of the hub itself. Without this the job would run again and again until its leases are used up.
        log.exception("update_failed attempt=%s event=%s", report.attempt, report.event)
        _fail_attempt(hub, report, now=now)
        return
    if verdict.accepted and report.event != "started":
        hub.news.set()
    level = logging.INFO if verdict.accepted else logging.WARNING
    log.log(level, "update attempt=%s worker=%s sentence=%s", report.attempt, report.worker, verdict.sentence)
    if not verdict.accepted:
        _ask_to_stop(hub, [report.attempt])


def take_heartbeat(hub: Hub, payload: Any, *, now: datetime) -> None:
    """Apply a heartbeat; its sender is asked to stop whatever it should no longer do."""
    hub.heard_at = now
    try:
        heartbeat = broker.read(Heartbeat, payload)
    except broker.UnreadableMessage as error:
        log.error("heartbeat_refused sentence=%s", error)
        return
    with db.session(hub.engine) as session:
        stale = apply_heartbeat(session, heartbeat, lease=hub.lease, budgets=hub.budgets, now=now)
        mode = unheard(session, heartbeat)
    _ask_to_stop(hub, stale)
    if mode is not None:
        try:
            broker.leave_mode(hub.app, heartbeat.worker, mode)
        except broker.BrokerLost as error:
            log.warning("mode_not_sent worker=%s sentence=%s", heartbeat.worker, error)


def _ask_to_stop(hub: Hub, attempts: list[str]) -> None:
    for attempt in attempts:
        try:
            broker.request_stop(hub.app, attempt, "The hub no longer counts on this attempt.")
        except broker.BrokerLost as error:
            log.warning("stop_not_sent attempt=%s sentence=%s", attempt, error)


def _fail_attempt(hub: Hub, report: Update, *, now: datetime) -> None:
    with db.session(hub.engine) as session:
        jobs.give_up(
            session,
            report.attempt,
            failure=FailureKind.HARNESS,
            sentence="The hub could not keep the result; its log says why. Report this as a bug, then retry.",
            now=now,
        )
