"""The control process: takes what workers report, and every tick gives out jobs and gives up ended leases.

    python -m orchestrator.control

The tick is a thread here and not a schedule in the broker: while this process is down, nothing piles up. Several
control processes may run at once; each claim and each move is a guarded UPDATE, so one of them makes it. It survives
the loss of the broker and of the database, and tries again at the next tick.
"""

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import OperationalError

from orchestrator import broker, db, notes
from orchestrator.artifacts import ArtifactStore
from orchestrator.canaries.drift import Bounds
from orchestrator.canaries.keeper import start_keeper
from orchestrator.clusters.launcher import start_launchers
from orchestrator.dispatch import Dispatcher
from orchestrator.errors import EvalyardError, SettingsError
from orchestrator.inbox import Inbox
from orchestrator.notices.notifier import start_notifier
from orchestrator.reaper import Listening, forget_workers, reap, unwind
from orchestrator.reruns.runner import start_runner
from orchestrator.reruns.watch import start_watch
from orchestrator.scheduling.forecasts import Forecaster
from orchestrator.scheduling.places import scheduling_policy
from orchestrator.scheduling.stranded import begin_elsewhere
from orchestrator.sealing import open_sealer
from orchestrator.settings import HubSettings, read_settings
from orchestrator.store_check import check_store
from orchestrator.suite_versions import record_suites
from orchestrator.suites import load_suites
from orchestrator.tasks import Hub, take

log = logging.getLogger(__name__)

FORGET_EVERY = timedelta(hours=1)
DEAF_AFTER = timedelta(seconds=60)
GATHER_SECONDS = 0.1
"""Between a report and the round that it causes: what comes meanwhile is given out in the same round and transaction.
Shorter, rounds of a quiet hub have nothing to share; longer, the slots of a busy one stand empty for it."""


@dataclass
class Ticker:
    """One round after the other, until told to stop."""

    hub: Hub
    dispatcher: Dispatcher
    forecaster: Forecaster
    listening: Listening
    tick_seconds: float
    stopping: threading.Event = field(default_factory=threading.Event)
    forgot_at: datetime | None = None
    looked_at: datetime | None = None
    """When the last round began."""
    unwound_at: datetime | None = None
    """Since when it listened when it last looked for what a clock that was set back has left in the future."""
    die: Callable[[], None] = lambda: os._exit(1)

    def run(self) -> None:
        while not self.stopping.is_set():
            now = datetime.now(UTC)
            self.notice_gap(now)
            self.safe_tick(now)
            self.give_out_until(time.monotonic() + self.tick_seconds)

    def give_out_until(self, end: float) -> None:
        """Until the next tick: a round of giving out whenever a report has freed a worker or made a job ready."""
        while not self.stopping.is_set() and (left := end - time.monotonic()) > 0:
            if not self.hub.news.wait(left):
                return
            self.hub.news.clear()
            # Reports of the same moment are one round's.
            if self.stopping.wait(min(GATHER_SECONDS, left)):
                return
            self.safely(lambda now: self.give_out(now, thorough=False), datetime.now(UTC))

    def give_out(self, now: datetime, *, thorough: bool = True) -> int:
        """Give out jobs; those that every worker refuses fail, once all workers had the time to be heard."""
        heard = self.listening.long_enough(now, self.hub.lease)
        return self.dispatcher.dispatch(now, thorough=thorough, gives_up=heard)

    def notice_gap(self, now: datetime) -> None:
        """Listen anew when time passed unseen: this process or its machine stood still, or the clock was set.

        Heartbeats of that time wait in the broker, and none of them was lost.
        """
        if self.looked_at is not None and not timedelta(0) <= now - self.looked_at <= self.hub.lease / 2:
            log.warning("time_passed_unseen since=%s", self.looked_at.isoformat())
            self.listening.interrupted(now)
        self.looked_at = now

    def safe_tick(self, now: datetime) -> None:
        """One round; whatever goes wrong is logged and the next round starts afresh."""
        self.safely(self.tick, now)

    def safely(self, round_of: Callable[[datetime], object], now: datetime) -> None:
        try:
            round_of(now)
        except broker.BrokerLost as error:
            self.listening.interrupted(now)
            log.warning("broker_away sentence=%s", error)
        except OperationalError as error:
            if not db.was_undone(error):
                self.listening.interrupted(now)
            db.log_lost(log, error)
        except Exception:
            log.exception("tick_failed")

    def tick(self, now: datetime) -> None:
        """Give out jobs, say what may come next, then give up attempts whose lease ended while the hub listened."""
        if self.unwound_at != self.listening.since:
            # It listens anew, maybe because its clock was set, and maybe while it did not run.
            unwind(self.hub.engine, now, lease=self.hub.lease, budgets=self.hub.budgets)
            self.unwound_at = self.listening.since
        self.give_out(now)
        self.forecaster.look(now)
        if not broker.answers(self.hub.app):
            self.listening.interrupted(now)
        self.end_if_deaf(now)
        if self.listening.long_enough(now, self.hub.lease):
            reap(self.hub.engine, now, budgets=self.hub.budgets)
            if self.forgot_at is None or not timedelta(0) <= now - self.forgot_at < FORGET_EVERY:
                forget_workers(self.hub.engine, now)
                begin_elsewhere(self.hub.engine, now, policy=self.dispatcher.policy)
                self.forgot_at = now

    def end_if_deaf(self, now: datetime) -> None:
        """End the process when messages wait and none is read: the consumer lost its connection without noticing.

        It is started again by whatever keeps it alive. Silence while nothing waits is no sign of anything.
        """
        heard = max(self.hub.heard_at or self.listening.since, self.listening.since)
        if now - heard >= DEAF_AFTER and broker.waiting_messages(self.hub.app, broker.CONTROL_QUEUE):
            log.critical("deaf messages wait in the broker and none was read since %s; ending", heard.isoformat())
            self.die()


def make_ticker(settings: HubSettings, *, now: datetime) -> Ticker:
    """The control process's parts, with the database brought up to date; nothing runs yet.

    Raises:
        SettingsError, DatabaseUnusable, SuiteError, BrokerError: with what to do next.
    """
    if not settings.broker_url:
        raise SettingsError("There is no broker. Start everything by `evalyard up`, or set EVALYARD_BROKER_URL.")
    engine = db.make_engine(settings.database_url)
    db.migrate(engine)
    suites = load_suites(settings.suites)
    with db.session(engine) as session:
        record_suites(session, suites.values(), now=now)
    app = broker.make_app(settings.broker_url, name="evalyard-control")
    hub = Hub(app=app, engine=engine, suites=suites, lease=timedelta(seconds=settings.lease_seconds))
    policy = scheduling_policy(settings)
    dispatcher = Dispatcher(
        engine=engine,
        suites=suites,
        send=lambda orders: broker.send_orders(app, orders),
        lease_seconds=settings.lease_seconds,
        policy=policy,
        suites_folder=settings.suites,
        sealer=open_sealer(settings) if settings.has_accounts else None,
    )
    forecaster = Forecaster(
        engine, tell=lambda worker, forecast: notes.leave_forecast(app, worker, forecast), policy=policy
    )
    return Ticker(
        hub=hub,
        dispatcher=dispatcher,
        forecaster=forecaster,
        listening=Listening(now),
        tick_seconds=settings.tick_seconds,
    )


def run(settings: HubSettings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    ticker = make_ticker(settings, now=datetime.now(UTC))
    check_store(ticker.hub.engine, ArtifactStore(settings.artifacts_url))
    thread = threading.Thread(target=ticker.run, name="ticker", daemon=True)
    thread.start()
    store = ArtifactStore(settings.artifacts_url, read_only=True, is_marked=True)
    start_runner(ticker.hub.engine, ticker.hub.suites, store, stopping=ticker.stopping)
    start_launchers(
        settings,
        ticker.hub.engine,
        policy=ticker.dispatcher.policy,
        listening=ticker.listening,
        stopping=ticker.stopping,
    )
    start_notifier(settings, ticker.hub.engine, stopping=ticker.stopping)
    bounds = Bounds(mean=settings.canary_mean, choices=settings.canary_choices, texts=settings.canary_texts)
    written = ArtifactStore(settings.artifacts_url, is_marked=True)
    start_keeper(ticker.hub.engine, written, bounds, stopping=ticker.stopping)
    start_watch(ticker.hub.engine, ticker.hub.suites, settings.rerun_policy, stopping=ticker.stopping)
    inbox = Inbox(ticker.hub.app, lambda letters: take(ticker.hub, letters), stopping=ticker.stopping)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ticker.stopping.set())
    try:
        inbox.run()
    finally:
        ticker.stopping.set()
        thread.join(timeout=10)
    return 0


def collect_rarely() -> None:
    """Look for cycles of garbage less often: each look reads all records of a long queue, which have none."""
    gc.set_threshold(100_000, 20, 20)


def main() -> None:
    collect_rarely()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        sys.exit(run(read_settings()))
    except (EvalyardError, broker.BrokerError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
