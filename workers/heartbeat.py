"""The heartbeat: a thread that tells the hub every few seconds that this worker lives and how far its attempts are.

It also notices when a worker lives and yet is to work no more: its queue is not read, the hub is behind, its host's
engine is another, or another worker has its name.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from celery import Celery

from orchestrator import broker
from orchestrator.wire import EngineInfo, EngineKnowledge, Heartbeat, canonical_json
from workers.engine.knowledge import engine_knowledge
from workers.harnesses import environments
from workers.idle.idle_watch import Standing
from workers.models.weights import Weights
from workers.own_name import NameTaken, OwnName
from workers.settings import WorkerSettings
from workers.supervisor import Supervisor

log = logging.getLogger(__name__)

LEAST_PAUSE = 0.3
"""Seconds between two heartbeats at least, however much there is to tell."""

MOST_WAITING = 20_000
"""Messages for the hub beyond which no heartbeat is added: it is away, and would have to read them all."""

FIRST_BEATS, EVERY_BEATS = 3, 200
"""What the engine knows is said in the first heartbeats of a boot, as one may be lost, and then in each so-many-th."""

MOST_WEIGHTS = 50
"""Models on the disk that a heartbeat lists."""

LOOK_SECONDS = 60.0
"""Pause between two looks whether the host has GPUs that an engine would use."""

NO_HARNESS = ("none",)
"""Said by a harness worker whose host has no harness yet: one that says nothing is given any work."""

DEAF_SECONDS = 30.0
"""An order that waits this long while a slot is free was not read: the consumer lost its connection unnoticed."""


class HeartbeatThread(threading.Thread):
    def __init__(
        self,
        app: Celery,
        supervisor: Supervisor,
        settings: WorkerSettings,
        *,
        boot: str,
        own_name: OwnName,
        engine: EngineInfo | None,
        weights: Weights,
        standing: Callable[[], Standing] = Standing,
        look: Callable[[], EngineInfo] | None = None,
        on_end: Callable[[], None],
    ) -> None:
        """`look` says what an engine started now would be; `on_end` ends the worker in good order."""
        super().__init__(name="heartbeat", daemon=True)
        self.boot = boot
        self._own_name = own_name
        self._app = app
        self._supervisor = supervisor
        self._settings = settings
        self._engine = engine
        self._weights = weights
        self._standing = standing
        self._on_end = on_end
        given = settings.worker_engine_settings
        self._engine_settings = hashlib.sha256(canonical_json(given)).hexdigest()[:8] if engine and given else ""
        self._look = look
        self._looked_at = time.monotonic()
        self._waiting_since: float | None = None
        self._beats = 0
        self._end = threading.Event()
        self._lost = False

    def run(self) -> None:
        changed = self._supervisor.changed
        while not self._end.is_set():
            changed.clear()
            try:
                self.beat()
                self._listen()
                self._look_at_host()
            except NameTaken as error:
                log.error("%s", error)
                self._end.set()
                self._on_end()
            except Exception:
                # A worker without this thread would be given up by the hub and hold its devices for nobody.
                log.exception("a heartbeat failed")
            self._end.wait(LEAST_PAUSE)
            changed.wait(self._settings.worker_heartbeat_seconds - LEAST_PAUSE)

    def end(self) -> None:
        """Send one last heartbeat and stop."""
        self._end.set()
        self._supervisor.changed.set()
        self.join(10)
        try:
            self.beat()
        except NameTaken:
            log.info("the last heartbeat is not sent: another worker has the name")

    def beat(self) -> None:
        """Send a heartbeat now; a broker that is away is no reason to stop working.

        Raises:
            NameTaken: another worker has this one's name; nothing was sent.
        """
        self._own_name.keep()
        running, devices, standing = self._supervisor.progress(), self._supervisor.devices, self._standing()
        slots = 0 if standing.sentence else self._settings.worker_slots or 1
        try:
            waiting = broker.waiting_messages(self._app, broker.CONTROL_QUEUE)
            if waiting is not None and waiting > MOST_WAITING:
                raise broker.BrokerLost(f"The hub has {waiting} messages to read and seems to be away.")
            broker.send_heartbeat(
                self._app,
                Heartbeat(
                    worker=self._settings.name,
                    boot=self.boot,
                    kind=self._settings.worker_kind,
                    at=datetime.now(UTC),
                    slots=devices.usable() if devices is not None else slots,
                    until=min(filter(None, (standing.until, self._settings.worker_until)), default=None),
                    engine=self._engine,
                    running=running,
                    stopping=self._supervisor.stopping.is_set(),
                    weights=self._weights.on_disk(MOST_WEIGHTS) if self._engine else (),
                    warm=devices.warm() if devices is not None else (),
                    mode=standing.mode,
                    sentence=standing.sentence or self._own_name.refusal(),
                    gpus=standing.gpus,
                    harnesses=self._harnesses(),
                    host=self._settings.host,
                    is_host_named=bool(self._settings.worker_host),
                    knowledge=self._knowledge(),
                    engine_settings=self._engine_settings,
                    address=self._supervisor.opener.address,
                ),
            )
        except (broker.BrokerLost, broker.MessageTooLarge) as error:
            if not self._lost:
                log.warning("heartbeats are not delivered: %s", error)
            self._lost = True
            return
        if self._lost:
            log.info("heartbeats are delivered again")
        self._lost = False
        self._beats += 1
        self._supervisor.heard(list(running))

    def _knowledge(self) -> EngineKnowledge | None:
        if self._engine is None or (self._beats >= FIRST_BEATS and self._beats % EVERY_BEATS):
            return None
        return engine_knowledge(self._engine.family)

    def _harnesses(self) -> tuple[str, ...]:
        """Looked for anew each time: one may be added while the worker runs."""
        settings = self._settings
        return (environments.names(settings.harnesses) or NO_HARNESS) if settings.worker_kind == "harness" else ()

    def _listen(self) -> None:
        """Find out whether orders wait that this worker has a free slot for and does not read."""
        waiting = broker.waiting_messages(self._app, broker.worker_queue(self._settings.name))
        devices = self._supervisor.devices
        slots = devices.count if devices is not None else self._settings.worker_slots or 1
        free = slots - len(self._supervisor.progress())
        if not waiting or free <= 0 or self._supervisor.stopping.is_set():
            self._waiting_since = None
            return
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since > DEAF_SECONDS:
            log.error("%d orders wait and are not read: starting anew", waiting)
            self._waiting_since = None
            self._on_end()

    def _look_at_host(self) -> None:
        """Find out, once a minute, whether driver or engine are others than when it started.

        Then the hub takes it for another worker than it is, and its answers for another build's.
        """
        if self._engine is None or self._look is None or time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        found = self._look()
        for name in ("device_type", "version", "driver", "runtime"):
            now, before = getattr(found, name), getattr(self._engine, name)
            if now != before:
                log.error("the %s of this host's engine is %s now, and not %s: starting anew", name, now, before)
                self._on_end()
                return
