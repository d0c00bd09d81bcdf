"""One attempt: devices and inputs in, stage program watched, outputs sealed, and what became of it as an update.

It never computes and never decides what happens next. Sealed responses stay valid even when the attempt is not the
current one any more.
"""

import logging
import shutil
import sys
import threading
import traceback
from dataclasses import dataclass
from typing import Any

from orchestrator import artifacts, wire
from orchestrator.envelopes import Opener
from orchestrator.wire import FailureKind, InferWork, Order, Progress, Spent, Update
from workers import child, inputs, recovery
from workers.devices import Devices
from workers.harnesses.launching import HarnessMissing, launch
from workers.models.weights import ModelUnavailable, NoRoom, Weights
from workers.outputs import SegmentUpload, upload_folder
from workers.reasons import AttemptFailed, AttemptStopped, Reasons
from workers.redaction import Redactor
from workers.reports import Hub, Reports
from workers.settings import WorkerSettings
from workers.warm import WarmEngine, engine_key

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Host:
    """What every attempt of a worker uses."""

    settings: WorkerSettings
    hub: Hub
    reports: Reports
    store: artifacts.ArtifactStore
    weights: Weights
    devices: Devices | None
    """Of an engine worker; a harness worker's stages need none."""
    stopping: threading.Event
    """Set when every attempt is to be given back."""
    changed: threading.Event
    """Set whenever the hub should hear about progress soon."""
    opener: Opener
    """Opens what the hub sealed for this process."""


class Attempt:
    def __init__(self, order: Order, host: Host) -> None:
        self.order = order
        self.reasons = Reasons(order, host.hub, host.stopping)
        self._host = host
        self._folder = host.settings.scratch / order.attempt
        self._out = self._folder / "out"
        self._stage_log = self._folder / "stage.log"
        self._lent = host.opener.open(order.lent, order.attempt) if order.lent else None
        """The submitter's own Hub token: for fetching this model, and for nothing else."""
        self._redact = Redactor((*host.settings.secrets, self._lent))
        self._progress = Progress()
        self._lock = threading.Lock()
        self._note = ""
        """Why the stage was started again, shown beside its phase."""
        self._environment: dict[str, str] = {}
        self._warm: WarmEngine | None = None
        """Holds the devices with this attempt, and was given nothing yet."""
        self._process: child.Child | None = None
        """The stage program of now, or the last."""

    @property
    def progress(self) -> Progress:
        with self._lock:
            return self._progress

    def run(self) -> Update:
        """Do the work; whatever happens becomes an update. The devices are free, or their engine idle, when it ends."""
        update: Update | None = None
        try:
            update = self._run()
            return update
        finally:
            self._leave_devices(ended_well=update is not None and update.event == "completed")
            shutil.rmtree(self._folder, ignore_errors=True)

    def preempt(self, sentence: str) -> None:
        """Give the attempt back within the grace, as others want its devices. Returns at once."""
        self.reasons.preempt(sentence)
        if (process := self._process) is not None:
            # From a thread of its own: the one that listens may be waiting for the artifact store.
            grace = self._host.settings.worker_grace_seconds
            threading.Thread(target=process.stop, args=(grace,), name=f"stop-{process.pid}", daemon=True).start()

    def _run(self) -> Update:
        try:
            self._check_lent()
            self._look_at_devices()
            self._folder.mkdir(parents=True, exist_ok=True)
            work = self._fetch()
            self._take_devices()
            outcome, done = self._watch(work)
        except AttemptStopped as stopped:
            return self._ended("released", sentence=str(stopped), tail=self._tail(), preempted=stopped.preempted)
        except NoRoom as busy:
            return self._ended("released", failure=busy.kind, sentence=busy.sentence)
        except HarnessMissing as missing:
            return self._ended("released", failure=FailureKind.HARNESS, sentence=str(missing))
        except (AttemptFailed, ModelUnavailable) as failed:
            return self._ended("failed", failure=failed.kind, sentence=failed.sentence, tail=self._tail())
        except artifacts.ArtifactError as error:
            if (because := self.reasons.give_back()) is not None:
                # It ends because others want the devices, or the worker stops: no failure, whatever else is away.
                sentence = f"{because} What it had not kept by then is answered again: {error}"
                return self._ended("released", sentence=sentence, tail=self._tail(), preempted=because.preempted)
            return self._ended("failed", failure=FailureKind.STORAGE, sentence=str(error), tail=self._tail())
        except OSError as error:
            sentence = f"The worker's disk failed at {error.filename}: {error.strerror}. Make room and retry."
            return self._ended("failed", failure=FailureKind.STORAGE, sentence=sentence, tail=self._tail())
        except Exception as error:
            # An error may quote what it was given, a lent token too.
            log.error("attempt %s: unexpected\n%s", self.order.attempt, self._redact(traceback.format_exc()))
            sentence = f"The worker stopped with an error of its own: {type(error).__name__}: {error}"
            return self._ended("failed", failure=FailureKind.ENGINE, sentence=sentence, tail=self._tail())
        if done is not None:
            return self._host.reports.update(self.order.attempt, "completed", done=done)
        return self._ended("failed", failure=outcome.failure, sentence=outcome.sentence, tail=outcome.log_tail)

    def _check_lent(self) -> None:
        """Give back an order whose envelope is not for this process: it was written for the one before.

        Raises:
            AttemptStopped
        """
        if self.order.lent and self._lent is None:
            raise AttemptStopped("The order was sealed for this worker before it was started again.")

    def _look_at_devices(self, *, begun: bool = False) -> None:
        """Nothing is fetched, or fetched on (`begun`), for devices that others use now.

        Raises:
            AttemptStopped: fewer may be used than the attempt needs.
        """
        devices = self._host.devices
        if (
            devices is not None
            and isinstance(self.order.work, InferWork)
            and devices.usable(begun=begun) < self.order.devices
        ):
            raise self._not_free(devices)

    def _take_devices(self) -> None:
        """Hold the devices of this attempt from now on, and an engine that is warm for its work.

        Only once everything is fetched: a download of an hour must not keep a GPU from others, or end a warm engine.

        Raises:
            AttemptStopped: not as many are free: the hub did not know yet what this host is used for.
        """
        devices, work = self._host.devices, self.order.work
        if devices is None or not isinstance(work, InferWork):
            return
        taken = devices.take(self.order.attempt, self.order.devices, key=engine_key(work, self.order.devices))
        if taken is None:
            raise self._not_free(devices)
        self._environment = devices.environment(taken.indices)
        self._warm = taken.engine

    def _not_free(self, devices: Devices) -> AttemptStopped:
        return AttemptStopped(
            f"This worker has not {self.order.devices} of its {devices.count} devices free at the moment."
        )

    def _leave_devices(self, *, ended_well: bool) -> None:
        """Leave the devices to the engine where that stays up, else to nobody."""
        devices, seconds = self._host.devices, self._host.settings.worker_warm_seconds
        if devices is None:
            return
        # A warm engine that was given nothing has the devices, and no process before it has.
        process, work = self._warm.child if self._warm is not None else self._process, self.order.work
        if process is None or not (ended_well and seconds and process.idle()) or self.reasons.devices_are_wanted():
            if process is None or process.kill():
                devices.free(self.order.attempt)
            else:
                devices.free_when_gone(self.order.attempt, process)
            return
        assert isinstance(work, InferWork)
        engine = WarmEngine(process, engine_key(work, self.order.devices), work.model.revision)
        devices.park(self.order.attempt, engine, seconds=seconds)
        if self.reasons.devices_are_wanted():  # since a moment ago
            devices.close((engine,))

    def _fetch(self) -> inputs.AnyWork:
        """The order's work with local paths. A download cannot be interrupted: it is left behind when asked to stop."""
        self._tell(phase="fetching the model and inputs")
        result: list[inputs.AnyWork | BaseException] = []

        def fetch() -> None:
            try:
                result.append(
                    inputs.fill_in(
                        self.order,
                        weights=self._host.weights,
                        store=self._host.store,
                        scratch=self._folder / "inputs",
                        settings=self._host.settings,
                        lent=self._lent,
                    )
                )
            except BaseException as error:
                result.append(error)

        thread = threading.Thread(target=fetch, name=f"fetch-{self.order.attempt}", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.25)
            if (reason := self.reasons.give_back()) is not None:
                raise reason
            self._look_at_devices(begun=True)
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]

    def _watch(self, work: inputs.AnyWork) -> tuple[child.Outcome, Any]:
        """Run the stage program, an engine that died again while that can help; returns how it ended and, for a good
        end, the Done record with artifact keys.
        """
        self.reasons.start_clock()
        if isinstance(work, InferWork):
            segments = SegmentUpload(self._host.store, self.order.output, self._out)
            outcome = recovery.answer_all(
                work, self._out, run=lambda again: self._leave_if_killed(again, segments), tell=self._tell_restart
            )
        else:
            outcome = self._run_stage(work)
        if outcome.done is None:
            return outcome, None
        self._tell(phase="keeping the results")
        return outcome, self._keep(outcome.done)

    def _leave_if_killed(self, work: InferWork, segments: SegmentUpload) -> child.Outcome:
        """Run the stage. Whoever kills it on a GPU that is lent wants that GPU, and is not to meet it there again.

        Raises:
            AttemptStopped, AttemptFailed: it was killed so. Without an answer kept it costs a try, or a host that kills
                each engine would have the job for ever.
        """
        outcome, devices = self._run_stage(work, segments), self._host.devices
        if devices is not None and devices.are_lent and outcome.was_killed:
            devices.note_killed(self.order.attempt)
            sentence = "Somebody killed the engine, as one does who wants the GPU: it is left to them."
            if not outcome.sealed:
                raise AttemptFailed(FailureKind.NODE_LOST, sentence)
            raise AttemptStopped(sentence, preempted=True)
        return outcome

    def _run_stage(self, work: inputs.AnyWork, segments: SegmentUpload | None = None) -> child.Outcome:
        """Run one stage program to its end: in the warm engine, if there is one, else in a process of its own.

        Raises:
            AttemptStopped, AttemptFailed: it was ended from here, and had nothing more to say.
        """
        self._tell_phase("starting")
        if (warm := self._warm) is not None:
            if warm.child.give(work, self._out):
                self._warm = None
                log.info("attempt %s: its engine is up already", self.order.attempt)
                outcome = self._listen(warm.child, segments)
                if outcome.failure is None or warm.child.heard:
                    return outcome
            if not warm.child.kill():  # dead, or no engine for this work
                raise AttemptStopped("The engine of the work before was killed and does not end. It keeps its devices.")
            self._warm = None
        return self._listen(self._start(work), segments)

    def _start(self, work: inputs.AnyWork) -> child.Child:
        if (reason := self.reasons.give_back()) is not None:
            raise reason
        settings = self._host.settings
        python, more = sys.executable, self._environment
        if not isinstance(work, InferWork):
            python, more = launch(work.harness, settings.harnesses)
        return child.start(
            work,
            self._out,
            log=self._stage_log,
            python=python,
            environment=inputs.environment(settings) | more,
            memory_bytes=settings.memory_bytes,
            stay=self._host.devices is not None and settings.worker_warm_seconds > 0,
        )

    def _listen(self, process: child.Child, segments: SegmentUpload | None) -> child.Outcome:
        """Listen to a stage until its work has ended, and end it where there is a reason to."""
        self._process = process
        if self._host.devices is not None and isinstance(self.order.work, InferWork):
            self._host.devices.started(self.order.attempt, process.pid, self.order.work.model.revision)
        self.reasons.stage_heard()
        ended_because: AttemptStopped | AttemptFailed | None = None
        try:
            while process.running():
                for event in process.events(timeout=0.25):
                    self.reasons.stage_heard()
                    self._take(event, segments)
                if ended_because is None:
                    ended_because = self.reasons.end_stage()
                    if ended_because is not None:
                        log.info("attempt %s: stopping its stage: %s", self.order.attempt, ended_because)
                        process.stop(self._host.settings.worker_grace_seconds)
        except BaseException:
            process.kill()
            raise
        finally:
            if segments is not None:
                segments.salvage()
        outcome = process.outcome()
        if outcome.done is None and (ended_because is not None or outcome.stopped):
            raise ended_because or self.reasons.give_back() or AttemptStopped("The stage was stopped.")
        return outcome

    def _take(self, event: dict[str, Any], segments: SegmentUpload | None) -> None:
        """One event of the stage. A stage counts what it has sealed, after saying so: by then it is uploaded here."""
        match event.get("event"):
            case "phase":
                self._tell_phase(str(event.get("phase", "")))
            case "progress":
                self._tell(done=int(event.get("done", 0)), total=int(event.get("total", 0)))
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
                    self._tell(spent=Spent.model_validate(event["spent"]))
                before = self.progress.benchmarks_done
                finished = tuple(sorted({*before, *map(str, event.get("benchmarks_done", ()))}))
                self._tell(benchmarks_done=finished)
                if finished != before:
                    self._host.changed.set()
            case _:
                pass

    def _keep(self, done: Any) -> Any:
        """Upload the outputs of a finished stage; the record then names their key, and no secret."""
        if isinstance(done, wire.PrepareDone):
            upload_folder(self._host.store, self.order.output, self._out)
            return done.model_copy(update={"sheet": self.order.output})
        if isinstance(done, wire.ScoreDone):
            upload_folder(self._host.store, self.order.output, self._out)
            return done.model_copy(update={"results": self.order.output})
        unanswered = tuple(one.model_copy(update={"sentence": self._redact(one.sentence)}) for one in done.unanswered)
        restarts = tuple(map(self._redact, done.restarts))
        return done.model_copy(update={"unanswered": unanswered, "restarts": restarts})

    def _tell(self, **changes: Any) -> None:
        with self._lock:
            self._progress = self._progress.model_copy(update=changes)

    def _tell_phase(self, phase: str) -> None:
        self._tell(phase=f"{phase} ({self._note})" if self._note else phase)

    def _tell_restart(self, sentence: str) -> None:
        log.warning("attempt %s: %s", self.order.attempt, sentence)
        self._note = self._redact(sentence)
        self._tell(restarts=recovery.kept_restarts((*self.progress.restarts, self._note)))

    def _tail(self) -> str:
        return self._process.log_tail() if self._process is not None else ""

    def _ended(self, event: Any, *, sentence: str, tail: str = "", **fields: Any) -> Update:
        """An end that is no completion, in words without secrets."""
        return self._host.reports.update(
            self.order.attempt,
            event,
            sentence=self._redact(sentence),
            tail=self._redact(tail),
            progress=self.progress,
            **fields,
        )
