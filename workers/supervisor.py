"""Runs one order to its end: inputs in, stage program watched, outputs sealed, and only then the word to the hub.

It never computes and never decides what happens next. Whatever it says may come late, twice or not at all: the
attempt's id is the fence, and sealed responses stay valid even when the attempt is not the current one any more.
"""

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from orchestrator import artifacts, wire
from orchestrator.broker import BrokerLost
from orchestrator.wire import FailureKind, InferWork, Order, Progress, Spent, Update
from workers import child, inputs, recovery
from workers.outputs import SegmentUpload, upload_folder
from workers.redaction import Redactor
from workers.settings import WorkerSettings
from workers.weights import ModelUnavailable, NoRoom, Weights

log = logging.getLogger(__name__)

REMEMBERED = 10_000
"""Attempts remembered, so that an order that comes twice runs once."""

ASK_SECONDS = 1.0
"""Pause between two looks for a note that asks to stop."""


class Hub(Protocol):
    """What a supervisor says to and hears from the hub."""

    def send(self, update: Update) -> None:
        """Raises BrokerLost when it could not be sent."""

    def stop_requested(self, attempt: str) -> str | None: ...


class AttemptFailed(Exception):
    """The attempt cannot go on, with the class of the failure and a sentence."""

    def __init__(self, kind: FailureKind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence


class AttemptStopped(Exception):
    """The attempt was asked to stop, for the reason given."""


@dataclass
class _Running:
    order: Order
    redact: Redactor
    progress: Progress = field(default_factory=Progress)
    hub_heard_at: float = field(default_factory=time.monotonic)
    """Last moment at which the hub can have extended the lease."""
    asked_at: float = 0.0
    """When the broker was last asked whether to stop."""
    note: str = ""
    """Why the stage was started again, shown beside its phase."""


class Supervisor:
    """Runs orders, several at a time when called from several threads."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        hub: Hub,
        store: artifacts.ArtifactStore,
        weights: Weights,
        changed: threading.Event | None = None,
    ) -> None:
        self.stopping = threading.Event()
        """Set it to give every attempt back: each seals, reports `released` and ends."""
        self.changed = changed or threading.Event()
        """Set whenever the hub should hear about progress soon."""
        self._settings = settings
        self._hub = hub
        self._store = store
        self._weights = weights
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._seen: dict[str, None] = {}

    def progress(self) -> dict[str, Progress]:
        """What runs now and how far it is, by attempt."""
        with self._lock:
            return {attempt: running.progress for attempt, running in self._running.items()}

    def heard(self, attempts: Iterator[str] | list[str]) -> None:
        """A heartbeat with these attempts was delivered: their leases live on."""
        now = time.monotonic()
        with self._lock:
            for attempt in attempts:
                if attempt in self._running:
                    self._running[attempt].hub_heard_at = now

    def run(self, order: Order) -> None:
        """Run an order to its end and report it. An order that came before is ignored."""
        with self._lock:
            if order.attempt in self._seen:
                log.info("order ignored: attempt %s came before", order.attempt)
                return
            self._seen[order.attempt] = None
            while len(self._seen) > REMEMBERED:
                del self._seen[next(iter(self._seen))]
            running = _Running(order, Redactor(self._settings.secrets))
            self._running[order.attempt] = running
        self.changed.set()
        try:
            self._report(running, self._attempt(running))
        finally:
            with self._lock:
                del self._running[order.attempt]
            self.changed.set()

    def refuse(self, attempt: str, sentence: str) -> None:
        """Report an order that cannot be run at all."""
        log.error("order refused: %s", sentence)
        with contextlib.suppress(BrokerLost):
            self._hub.send(self._update(attempt, "failed", failure=FailureKind.ENGINE, sentence=sentence))

    def _attempt(self, running: _Running) -> Update:
        """Do the work; whatever happens becomes an update."""
        order = running.order
        folder = self._settings.scratch / order.attempt
        stage_log = folder / "stage.log"
        try:
            with contextlib.suppress(BrokerLost):  # a lost `started` costs nothing: heartbeats name the attempt too
                self._hub.send(self._update(order.attempt, "started"))
            folder.mkdir(parents=True, exist_ok=True)
            work = self._fetch(running, folder)
            outcome, done = self._watch(running, work, folder, stage_log)
        except AttemptStopped as stopped:
            return self._update(order.attempt, "released", sentence=str(stopped), tail=self._tail(running, stage_log))
        except NoRoom as busy:
            return self._update(order.attempt, "released", failure=busy.kind, sentence=running.redact(busy.sentence))
        except (AttemptFailed, ModelUnavailable) as failed:
            return self._failed(running, failed.kind, failed.sentence, stage_log)
        except artifacts.ArtifactError as error:
            return self._failed(running, FailureKind.STORAGE, str(error), stage_log)
        except OSError as error:
            sentence = f"The worker's disk failed at {error.filename}: {error.strerror}. Make room and retry."
            return self._failed(running, FailureKind.STORAGE, sentence, stage_log)
        except Exception as error:
            log.exception("attempt %s: unexpected", order.attempt)
            sentence = f"The worker stopped with an error of its own: {type(error).__name__}: {error}"
            return self._failed(running, FailureKind.ENGINE, sentence, stage_log)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if done is not None:
            return self._update(order.attempt, "completed", done=done)
        assert outcome.failure is not None
        return self._update(
            order.attempt,
            "failed",
            failure=outcome.failure,
            sentence=running.redact(outcome.sentence),
            tail=running.redact(outcome.log_tail),
        )

    def _fetch(self, running: _Running, folder: Path) -> inputs.AnyWork:
        """The order's work with local paths. A download cannot be interrupted: it is left behind when asked to stop."""
        self._tell(running, phase="fetching the model and inputs")
        result: list[inputs.AnyWork | BaseException] = []

        def fetch() -> None:
            try:
                result.append(
                    inputs.fill_in(
                        running.order,
                        weights=self._weights,
                        store=self._store,
                        scratch=folder / "inputs",
                        settings=self._settings,
                    )
                )
            except BaseException as error:
                result.append(error)

        thread = threading.Thread(target=fetch, name=f"fetch-{running.order.attempt}", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.25)
            self._check_stop(running)
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]

    def _watch(
        self, running: _Running, work: inputs.AnyWork, folder: Path, stage_log: Path
    ) -> tuple[child.Outcome, Any]:
        """Run the stage program, an engine that died again while that can help; returns how it ended and, for a good
        end, the Done record with artifact keys.
        """
        order = running.order
        out = folder / "out"
        deadline = None if order.timeout_seconds is None else time.monotonic() + order.timeout_seconds
        if isinstance(work, InferWork):
            segments = SegmentUpload(self._store, order.output, out)

            def run(work: InferWork) -> child.Outcome:
                return self._run_stage(running, work, out, stage_log=stage_log, deadline=deadline, segments=segments)

            def tell(sentence: str) -> None:
                log.warning("attempt %s: %s", order.attempt, sentence)
                running.note = running.redact(sentence)
                restarts = recovery.kept_restarts((*running.progress.restarts, running.note))
                self._tell(running, restarts=restarts)

            outcome = recovery.answer_all(work, out, run=run, tell=tell)
        else:
            outcome = self._run_stage(running, work, out, stage_log=stage_log, deadline=deadline)
        if outcome.done is not None:
            self._tell(running, phase="keeping the results")
            return outcome, self._keep(running, outcome.done, out)
        if outcome.stopped or outcome.failure is None:
            raise AttemptStopped("The stage was stopped.")
        return outcome, None

    def _run_stage(
        self,
        running: _Running,
        work: inputs.AnyWork,
        out: Path,
        *,
        stage_log: Path,
        deadline: float | None,
        segments: SegmentUpload | None = None,
    ) -> child.Outcome:
        """Run one stage program to its end.

        Raises:
            AttemptStopped, AttemptFailed: it was ended from here, and had nothing more to say.
        """
        order = running.order
        self._tell_phase(running, "starting")
        heard_at = time.monotonic()
        process = child.start(
            work,
            out,
            log=stage_log,
            environment=inputs.environment(self._settings),
            memory_bytes=self._settings.memory_bytes,
        )
        ended_because: AttemptStopped | AttemptFailed | None = None
        try:
            while process.running():
                for event in process.events(timeout=0.25):
                    heard_at = time.monotonic()
                    self._take(running, event, segments)
                if ended_because is None:
                    ended_because = self._reason_to_end(running, deadline) or _stalled(order, heard_at)
                    if ended_because is not None:
                        log.info("attempt %s: stopping its stage: %s", order.attempt, ended_because)
                        process.stop(self._settings.worker_grace_seconds)
        except BaseException:
            process.kill()
            raise
        finally:
            if segments is not None:
                segments.salvage()
        outcome = process.outcome()
        if ended_because is not None and outcome.done is None:
            raise ended_because
        return outcome

    def _take(self, running: _Running, event: dict[str, Any], segments: SegmentUpload | None) -> None:
        """One event of the stage. A stage counts what it has sealed, after saying so: by then it is uploaded here."""
        match event.get("event"):
            case "phase":
                self._tell_phase(running, str(event.get("phase", "")))
            case "progress":
                self._tell(running, done=int(event.get("done", 0)), total=int(event.get("total", 0)))
            case "sealed" if segments is not None:
                file = event.get("file")
                if file and not segments.upload(str(file)):
                    # Its requests would count as answered, and no one would ever compute them again.
                    raise AttemptFailed(
                        FailureKind.STORAGE,
                        f"Segment {file} was damaged on the worker's disk before it could be kept. Its requests are "
                        "computed again; check that disk.",
                    )
                if "spent" in event:
                    self._tell(running, spent=Spent.model_validate(event["spent"]))
                before = running.progress.benchmarks_done
                finished = tuple(sorted({*before, *map(str, event.get("benchmarks_done", ()))}))
                self._tell(running, benchmarks_done=finished)
                if finished != before:
                    self.changed.set()
            case _:
                pass

    def _keep(self, running: _Running, done: Any, out: Path) -> Any:
        """Upload the outputs of a finished stage; the record then names their key, and no secret."""
        order, redact = running.order, running.redact
        if isinstance(done, wire.PrepareDone):
            upload_folder(self._store, order.output, out)
            return done.model_copy(update={"sheet": order.output})
        if isinstance(done, wire.ScoreDone):
            upload_folder(self._store, order.output, out)
            return done.model_copy(update={"results": order.output})
        unanswered = tuple(one.model_copy(update={"sentence": redact(one.sentence)}) for one in done.unanswered)
        return done.model_copy(update={"unanswered": unanswered, "restarts": tuple(map(redact, done.restarts))})

    def _check_stop(self, running: _Running) -> None:
        reason = self._reason_to_end(running, None)
        if reason is not None:
            raise reason

    def _reason_to_end(self, running: _Running, deadline: float | None) -> AttemptStopped | AttemptFailed | None:
        order = running.order
        if self.stopping.is_set():
            return AttemptStopped("The worker is stopping.")
        now = time.monotonic()
        if now - running.asked_at > ASK_SECONDS:
            note = self._hub.stop_requested(order.attempt)
            running.asked_at = time.monotonic()
            if note:
                return AttemptStopped(note)
        if now - running.hub_heard_at > order.lease_seconds:
            # The hub has given the job to another by now: two engines for one job help nobody.
            return AttemptStopped(f"The hub could not be reached for {order.lease_seconds:g} s: the lease has ended.")
        if deadline is not None and now > deadline:
            return AttemptFailed(
                FailureKind.TIMEOUT,
                f"The {order.work.stage} stage took longer than its limit of {order.timeout_seconds:g} s. "
                "Retry on a faster worker or with a smaller --limit.",
            )
        return None

    def _report(self, running: _Running, update: Update) -> None:
        """Say how it ended, again and again until it is sent; heartbeats keep the lease meanwhile."""
        log.info("attempt %s: %s %s", update.attempt, update.event, update.sentence)
        pause = 0.5
        while True:
            try:
                self._hub.send(update)
                return
            except BrokerLost as error:
                if time.monotonic() - running.hub_heard_at > running.order.lease_seconds or self.stopping.is_set():
                    log.warning("attempt %s: gave up telling the hub: %s", update.attempt, error)
                    return
                self.stopping.wait(pause)
                pause = min(pause * 2, 5.0)

    def _tell(self, running: _Running, **changes: Any) -> None:
        with self._lock:
            running.progress = running.progress.model_copy(update=changes)

    def _tell_phase(self, running: _Running, phase: str) -> None:
        self._tell(running, phase=f"{phase} ({running.note})" if running.note else phase)

    def _tail(self, running: _Running, stage_log: Path) -> str:
        return running.redact(child.log_tail(stage_log))

    def _failed(self, running: _Running, kind: FailureKind, sentence: str, stage_log: Path) -> Update:
        return self._update(
            running.order.attempt,
            "failed",
            failure=kind,
            sentence=running.redact(sentence),
            tail=self._tail(running, stage_log),
        )

    def _update(
        self,
        attempt: str,
        event: Literal["started", "completed", "failed", "released"],
        *,
        done: Any = None,
        failure: FailureKind | None = None,
        sentence: str = "",
        tail: str = "",
    ) -> Update:
        return Update(
            attempt=attempt,
            worker=self._settings.name,
            at=datetime.now(UTC),
            event=event,
            done=done,
            failure=failure,
            sentence=sentence,
            log_tail=tail,
            progress=self.progress().get(attempt) if event in ("failed", "released") else None,
        )


def _stalled(order: Order, heard_at: float) -> AttemptFailed | None:
    """A stage that says nothing for very long hangs: its supervisor's heartbeats would keep the job for ever."""
    if order.stall_seconds is None or time.monotonic() - heard_at <= order.stall_seconds:
        return None
    return AttemptFailed(
        FailureKind.ENGINE,
        f"The {order.work.stage} stage said nothing for {order.stall_seconds:g} s: it hangs. Whatever it answered "
        "before is kept.",
    )
