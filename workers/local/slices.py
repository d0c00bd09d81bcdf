"""Inference on this machine's devices: one engine, or several side by side, each with a slice of the sheets.

More devices than a model needs become more slices, not a bigger engine. What a slice seals is kept at once, whatever
becomes of it and of the others.
"""

import errno
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.footprint import USUAL_SHARE
from orchestrator.wire import EngineFamily, EngineInfo, FailureKind, InferDone, InferWork
from workers import child, recovery
from workers.devices import Devices
from workers.engine.engine import Need
from workers.engine.sizes import tensor_parallel_size
from workers.engine.vllm_settings import context_length
from workers.engine.weights import check_weights, read_config
from workers.local.local_stage import StageError, done_of, log_of, run_child, segment_files
from workers.models.folders import whole_folder
from workers.sheets import read_info
from workers.stage import StageFailure

Tell = Callable[[str, int, int], None]
"""Called with what is happening, requests done and of how many; from several threads."""


@dataclass(frozen=True)
class Slice:
    """One engine's share of the work and where it goes."""

    work: InferWork
    out: Path
    environment: dict[str, str]
    """Names the devices that its engine sees; empty where it sees all."""


def slices_of(work: InferWork, out: Path, devices: Sequence[str], *, needed: int) -> list[Slice]:
    """The work as one slice for each engine that fits beside the others; `needed` devices make an engine.

    `devices`: what CUDA_VISIBLE_DEVICES calls each; none on a CPU.
    """
    count = max(1, len(devices) // needed)
    held = Devices(len(devices), names=devices)
    if count == 1:
        # All of them, by name: a stage that were told nothing would count GPUs in another order than the driver's.
        return [Slice(work.model_copy(update={"attempt": _attempt()}), out, held.environment(range(len(devices))))]
    return [
        Slice(
            work.model_copy(update={"slice_index": index, "slice_count": count, "attempt": _attempt()}),
            out.with_name(f"{out.name}-{index + 1}"),
            held.environment(range(index * needed, (index + 1) * needed)),
        )
        for index in range(count)
    ]


def devices_needed(work: InferWork, info: EngineInfo) -> int:
    """How many of the devices in `info` one engine takes; all of them where it says that they cannot hold the model."""
    if work.engine is not EngineFamily.VLLM or info.device_type == "cpu":
        return 1
    if given := work.settings.get("tensor_parallel_size"):
        return int(given)
    folder = whole_folder(work.model, work.model_folder)
    try:
        config = read_config(folder)
        longest = max((read_info(Path(sheet)).longest for sheet in work.sheets.values()), default=0)
        return tensor_parallel_size(
            work.model,
            config,
            info=info,
            weight_bytes=check_weights(folder),
            context=context_length(work, Need(0, longest), config),
            share=float(work.settings.get("gpu_memory_utilization", USUAL_SHARE)),
        )
    except StageFailure:
        return info.device_count  # the engine says it better


def infer(slices: Sequence[Slice], store: Path, tell: Tell, *, stopping: threading.Event) -> InferDone:
    """Answer all slices side by side into segments below `store`; returns what they did together.

    When one fails, or on Ctrl-C, the others seal what they have and end, too.

    Raises:
        StageError: a slice failed.
    """
    tally = _Tally(tell)

    def answer(one: Slice) -> InferDone:
        return _answer(one, store, tally, stopping=stopping)

    with ThreadPoolExecutor(len(slices)) as pool:
        running = [pool.submit(answer, one) for one in slices]
        try:
            for future in as_completed(running):
                future.result()
        except BaseException as error:
            stopping.set()
            tally.say("stopping: what is computed is sealed")
            _wait_for_all(running)
            raise _cause(error, running) from None
    return _together([future.result() for future in running])


def _answer(one: Slice, store: Path, tally: "_Tally", *, stopping: threading.Event) -> InferDone:
    target = store / one.work.attempt

    def keep(segment: Path) -> None:
        """Move it below the store, which may be another disk: whole or not at all, either way."""
        target.mkdir(parents=True, exist_ok=True)
        try:
            segment.replace(target / segment.name)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy = target / f".{segment.name}.part"
            with segment.open("rb") as source, copy.open("wb") as written:
                shutil.copyfileobj(source, written)
                written.flush()
                os.fsync(written.fileno())
            copy.replace(target / segment.name)
            segment.unlink()

    def listen(event: dict[str, Any]) -> None:
        match event["event"]:
            case "phase":
                tally.say(event["phase"])
            case "progress":
                tally.stands(one.work.slice_index, event["done"], event["total"])
            case "sealed" if event.get("file"):
                keep(one.out / event["file"])

    def run(work: InferWork) -> child.Outcome:
        work = work.model_copy(update={"known": segment_files(store)})
        try:
            return run_child(work, one.out, listen, stopping=stopping, environment=one.environment)
        finally:
            # What was sealed and never announced: the stage was killed in between.
            for segment in sorted(one.out.glob("[0-9]*.jsonl.zst")):
                keep(segment)

    outcome = recovery.answer_all(one.work, one.out, run=run, tell=tally.say)
    return done_of(outcome, InferDone, log_of(one.out))


class _Tally:
    """How far all slices are together: each says how much of its own part is answered."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._phase = "starting"
        self._stand: dict[int, tuple[int, int]] = {}
        """Of each slice: answered, of how many."""

    def say(self, phase: str) -> None:
        with self._lock:
            self._phase = phase
            self._tell(phase, 0, 0)

    def stands(self, slice_index: int, done: int, total: int) -> None:
        with self._lock:
            self._stand[slice_index] = (done, total)
            done, total = (sum(numbers) for numbers in zip(*self._stand.values(), strict=True))
            self._tell(self._phase, done, total)  # in here, so that it is told in the order in which it came


def _together(parts: Sequence[InferDone]) -> InferDone:
    """One record of slices that ran side by side: what they did adds up, the time is that of the slowest."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return first.model_copy(
        update={
            "computed": sum(part.computed for part in parts),
            "reused": sum(part.reused for part in parts),
            "seconds": max(part.seconds for part in parts),
            "total_seconds": max(part.total_seconds for part in parts),
            "tokens_computed": sum(part.tokens_computed for part in parts),
            "tokens_reused": sum(part.tokens_reused for part in parts),
            "engine": first.engine.model_copy(update={"device_count": sum(part.engine.device_count for part in parts)}),
            "settings": next((part.settings for part in parts if part.settings), {}),
            "unanswered": tuple(one for part in parts for one in part.unanswered),
            "restarts": tuple(sentence for part in parts for sentence in part.restarts),
        }
    )


def _cause(first: BaseException, running: Sequence[Future[InferDone]]) -> BaseException:
    """Why all ended: not that one was stopped because of another, which may be heard of first."""
    errors = [first, *(error for future in running if (error := future.exception()) is not None)]
    return next(
        (one for one in errors if not (isinstance(one, StageError) and one.kind is FailureKind.CANCELLED)), first
    )


def _wait_for_all(running: Sequence[Future[InferDone]]) -> None:
    """Until each slice has ended, however often Ctrl-C is pressed: what they hold is being sealed."""
    while not all(future.done() for future in running):
        try:
            wait(running)
        except KeyboardInterrupt:
            continue


def _attempt() -> str:
    return f"local-{uuid.uuid4().hex}"
