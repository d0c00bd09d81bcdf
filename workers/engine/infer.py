"""The infer stage: `python -m workers.engine.infer WORK.json OUT` answers what sheets ask and no segment holds yet.

It opens no connection, knows no benchmark and scores nothing. SIGTERM makes it stop feeding, seal what is finished,
say `stopped` and end with exit code 3. When nothing is missing it starts no engine.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import FrameType

from orchestrator.wire import EngineInfo, FailureKind, InferDone, InferWork, identity_digest
from workers import stage
from workers.engine.engine import Engine, Need
from workers.engine.failures import classify
from workers.engine.families import make_engine
from workers.engine.feed import feed, refuse_foreign_tokens
from workers.engine.info import EngineMissing, engine_info
from workers.engine.known import answered
from workers.engine.ledger import Ledger
from workers.engine.sealer import Sealer, segment_files
from workers.engine.selection import open_groups, request_ids
from workers.engine.weights import vocabulary_size
from workers.segments import Header
from workers.sheets import Request, read_info
from workers.stage import StageFailure, emit

EXIT_STOPPED = 3


class _Stop:
    """Whether the stage was asked to stop. While the engine loads there is nothing to seal: it ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self.loading = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self.loading:
            leave_stopped()

    def __call__(self) -> bool:
        return self.asked


def leave_stopped() -> None:
    """Say that the stage stopped as asked, and end it."""
    emit("stopped")
    sys.stderr.flush()
    os._exit(EXIT_STOPPED)


def infer(work: InferWork, out: Path) -> InferDone:
    """Answer the open requests of this work's slice into sealed segments below `out`."""
    started = time.monotonic()
    stop = _Stop()
    info = _info(work)
    sheets = {name: Path(folder) for name, folder in work.sheets.items()}
    ledger = _ledger(work, sheets, out)
    reused = ledger.sealed
    emit("progress", done=ledger.sealed, total=ledger.total)
    if done := ledger.benchmarks_done:
        emit("sealed", file=None, count=0, benchmarks_done=done)
    engine: Engine | None = None
    groups = open_groups(
        list(sheets.values()),
        ledger.is_open,
        slice_index=work.slice_index,
        slice_count=work.slice_count,
        wants_generations=lambda: engine is None or engine.wants_generations(),
    )
    first = next(groups, None)
    if first is None:
        return InferDone(
            computed=0,
            reused=reused,
            seconds=0.0,
            total_seconds=time.monotonic() - started,
            tokens_computed=0,
            tokens_reused=0,
            engine=info,
        )

    engine = _start(work, Need(ledger.open, _longest(sheets)), stop)
    emit("phase", phase="answering")
    header = Header(identity_digest(work.identity), work.attempt, info.model_dump(mode="json"), engine.settings)
    sealer = Sealer(out, header, ledger, seconds=work.seal_seconds, now=time.monotonic)
    feeding = _Counted(chain([first], groups))
    vocabulary = vocabulary_size(Path(work.model_folder)) if work.model_folder else None
    began = time.monotonic()
    try:
        finished = feed(engine, refuse_foreign_tokens(feeding, vocabulary), sealer, stopping=stop)
    except StageFailure:
        raise
    except Exception as error:
        raise classify(error, work.model.name) from error
    if not finished:
        leave_stopped()
    if sealer.count != feeding.requests:
        raise StageFailure(
            FailureKind.ENGINE,
            f"The engine was given {feeding.requests} requests and answered {sealer.count}. The rest can be computed "
            "by another attempt.",
        )
    return InferDone(
        computed=sealer.count,
        reused=reused,
        seconds=time.monotonic() - began,
        total_seconds=time.monotonic() - started,
        tokens_computed=engine.tokens_computed,
        tokens_reused=engine.tokens_reused,
        engine=info,
        settings=engine.settings,
    )


def _info(work: InferWork) -> EngineInfo:
    try:
        return engine_info(work.engine)
    except EngineMissing as missing:
        raise StageFailure(FailureKind.ENGINE, str(missing)) from missing


def _start(work: InferWork, need: Need, stop: _Stop) -> Engine:
    emit("phase", phase="loading weights")
    stop.loading = True
    if stop.asked:
        leave_stopped()
    try:
        engine = make_engine(work, need)
        engine.start()
    except StageFailure:
        raise
    except Exception as error:
        raise classify(error, work.model.name) from error
    stop.loading = False
    return engine


def _ledger(work: InferWork, sheets: dict[str, Path], out: Path) -> Ledger:
    """What is asked, less what sealed segments answer; those left in `out` by an earlier run of it count as well."""
    ledger = Ledger(list(sheets))
    for position, sheet in enumerate(sheets.values()):
        ledger.ask(position, request_ids(sheet))
    ledger.seal(answered([*map(Path, work.known), *segment_files(out)], identity_digest(work.identity)))
    return ledger


def _longest(sheets: dict[str, Path]) -> int:
    return max(read_info(sheet).longest for sheet in sheets.values())


class _Counted(Iterator[list[Request]]):
    """Groups on their way to the engine, and how many requests they held."""

    def __init__(self, groups: Iterator[list[Request]]) -> None:
        self._groups = groups
        self.requests = 0

    def __next__(self) -> list[Request]:
        group = next(self._groups)
        self.requests += len(group)
        return group


if __name__ == "__main__":
    stage.run(InferWork, infer)
