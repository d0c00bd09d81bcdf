"""What the hub does with a worker's message: reads it, applies it in a transaction, asks a stale attempt to stop.

Three lines each in spirit: everything that decides is in `updates` and `heartbeats`. Updates that come at the same time
share a transaction, and so do heartbeats. A message that cannot be read is refused with a logged sentence and never
stops the hub.
"""

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from celery import Celery
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from orchestrator import broker, db, jobs, notes
from orchestrator.budgets import Budgets
from orchestrator.heartbeats import apply_heartbeats
from orchestrator.modes import unheard
from orchestrator.suites import Suite
from orchestrator.together import ApplyAlone, Overtaken
from orchestrator.updates import Verdict, apply_updates
from orchestrator.wire import FailureKind, Heartbeat, Update

log = logging.getLogger(__name__)

MOST_TOGETHER = 32
"""Messages of one transaction: few enough that nothing waits long for it."""


MOST_STOPPED = 200
"""Attempts that are asked to stop after one heartbeat, a note in the broker for each. The next one lists the others."""


class Letter(NamedTuple):
    """A message as it came: the name of its task, and the argument, which may be anything."""

    task: str
    payload: Any


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

    def apply(self, reports: Sequence[Update]) -> list[Verdict]:
        """What became of each; in one transaction but for failures, which have one each."""
        plain = [number for number, report in enumerate(reports) if report.event != "failed"]
        verdicts = dict(zip(plain, self._apply_in_one([reports[number] for number in plain]), strict=True))
        # Of one attempt a failure is the last word, and what comes after it is stale in any order.
        for number, report in enumerate(reports):
            if report.event == "failed":
                verdicts[number] = self._apply_in_one([report])[0]
        return [verdicts[number] for number in range(len(reports))]

    def _apply_in_one(self, reports: Sequence[Update]) -> list[Verdict]:
        if not reports:
            return []
        now = datetime.now(UTC)
        try:
            with db.session(self.engine) as session:
                return apply_updates(session, reports, suites=self.suites, budgets=self.budgets, now=now)
        except OperationalError:
            raise
        except (ApplyAlone, Overtaken):
            pass
        except Exception:
            if len(reports) == 1:
                return [self._fail_attempt(reports[0], now=now)]
            # One of them is at fault: by itself it fails its own attempt, and no other.
            log.exception("updates_failed attempts=%s", ",".join(report.attempt for report in reports))
        return [verdict for report in reports for verdict in self._apply_in_one([report])]

    def _fail_attempt(self, report: Update, *, now: datetime) -> Verdict:
        """A fault of the hub itself. Without this the job would run again and again until its leases are used up."""
        log.exception("update_failed attempt=%s event=%s", report.attempt, report.event)
        sentence = "The hub could not keep the result; its log says why. Report this as a bug, then retry."
        try:
            with db.session(self.engine) as session:
                ended = jobs.give_up(session, report.attempt, failure=FailureKind.HARNESS, sentence=sentence, now=now)
        except OperationalError:
            raise
        except Exception:
            # Not even that, say of an attempt whose name the database cannot hold: the others must not be lost with it.
            log.exception("attempt_not_ended attempt=%s", report.attempt)
            ended = False
        return Verdict(accepted=ended, sentence=sentence)


def take(hub: Hub, letters: Sequence[Letter]) -> None:
    """Apply these messages: the updates together, in the order they came in, then the heartbeats.

    Raises:
        OperationalError: the database is away, and some updates may not be applied. To apply all again does no harm.
    """
    now = datetime.now(UTC)
    hub.heard_at = now
    for letter in letters:
        if letter.task not in (broker.UPDATE_TASK, broker.HEARTBEAT_TASK):
            log.error("message_refused task=%s", letter.task[:100])
    reports = [
        report
        for letter in letters
        if letter.task == broker.UPDATE_TASK and (report := _read_update(letter.payload)) is not None
    ]
    for start in range(0, len(reports), MOST_TOGETHER):
        _take_updates(hub, reports[start : start + MOST_TOGETHER])
    take_heartbeats(hub, [letter.payload for letter in letters if letter.task == broker.HEARTBEAT_TASK], now=now)


def _read_update(payload: Any) -> Update | None:
    try:
        return broker.read(Update, payload)
    except broker.UnreadableMessage as error:
        log.error("update_refused attempt=%s sentence=%s", error.attempt, error)
        return None


def _take_updates(hub: Hub, reports: Sequence[Update]) -> None:
    """Apply updates; the senders of those of stale attempts are asked to stop."""
    try:
        verdicts = hub.apply(reports)
    except OperationalError:
        raise
    except Exception:
        log.exception("updates_lost attempts=%s", ",".join(report.attempt for report in reports))
        return
    for report, verdict in zip(reports, verdicts, strict=True):
        if verdict.accepted and report.event != "started":
            hub.news.set()
        if verdict.is_foreign:
            log.warning("foreign_update worker=%s sentence=%s", report.worker, verdict.sentence)
            continue
        level = logging.INFO if verdict.accepted else logging.WARNING
        log.log(level, "update attempt=%s worker=%s sentence=%s", report.attempt, report.worker, verdict.sentence)
        if not verdict.accepted:
            _ask_to_stop(hub, [report.attempt])


def take_heartbeats(hub: Hub, payloads: Sequence[Any], *, now: datetime) -> None:
    """Apply heartbeats; their senders are asked to stop whatever they should no longer do.

    One that cannot be applied is passed over: the next one of its worker follows in seconds.
    """
    for beats in _in_turn(_read_heartbeat(payload) for payload in payloads):
        try:
            _apply_heartbeats(hub, beats, now=now)
        except OperationalError as error:
            db.log_lost(log, error)


def _read_heartbeat(payload: Any) -> Heartbeat | None:
    try:
        heartbeat = broker.read(Heartbeat, payload)
        broker.worker_queue(heartbeat.worker)  # no order would ever reach it
    except broker.BrokerError as error:
        log.error("heartbeat_refused sentence=%s", error)
        return None
    return heartbeat


def _in_turn(heartbeats: Iterable[Heartbeat | None]) -> Iterator[list[Heartbeat]]:
    """Those that share a transaction, in the order in which they came; of one process the last says it all."""
    last: dict[tuple[str, str], Heartbeat] = {}
    for beat in heartbeats:
        if beat is None:
            continue
        before = last.pop((beat.worker, beat.boot), None)
        if before is not None and beat.knowledge is None and before.knowledge is not None:
            beat = beat.model_copy(update={"knowledge": before.knowledge})  # said now and then alone
        last[beat.worker, beat.boot] = beat
    batch: dict[str, Heartbeat] = {}
    for beat in last.values():
        if len(batch) == MOST_TOGETHER or beat.worker in batch:
            yield list(batch.values())
            batch = {}
        batch[beat.worker] = beat
    if batch:
        yield list(batch.values())


def _apply_heartbeats(hub: Hub, beats: Sequence[Heartbeat], *, now: datetime) -> None:
    """In one transaction; where that cannot be, each in its own."""
    try:
        with db.session(hub.engine) as session:
            stale = apply_heartbeats(session, beats, lease=hub.lease, budgets=hub.budgets, now=now)
            modes = unheard(session, beats)
    except OperationalError:
        raise
    except Exception as error:
        if len(beats) == 1:
            log.exception("heartbeat_failed worker=%s", beats[0].worker)
            return
        if not isinstance(error, ApplyAlone | Overtaken):
            log.exception("heartbeats_failed workers=%s", ",".join(beat.worker for beat in beats))
        for beat in beats:
            _apply_heartbeats(hub, [beat], now=now)
        return
    for attempts in stale:
        _ask_to_stop(hub, attempts[:MOST_STOPPED])
    for worker, mode in modes.items():
        try:
            notes.leave_mode(hub.app, worker, mode)
        except broker.BrokerLost as error:
            log.warning("mode_not_sent worker=%s sentence=%s", worker, error)


def _ask_to_stop(hub: Hub, attempts: list[str]) -> None:
    for attempt in attempts:
        try:
            notes.request_stop(hub.app, attempt, "The hub no longer counts on this attempt.")
        except broker.BrokerLost as error:
            log.warning("stop_not_sent attempt=%s sentence=%s", attempt, error)
