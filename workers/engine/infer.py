"""The infer stage: `python -m workers.engine.infer WORK.json OUT` answers what sheets ask and no segment holds yet.

It opens no connection, knows no benchmark and scores nothing. SIGTERM makes it stop feeding, seal what is finished,
say `stopped` and end with exit code 3. When nothing is missing it starts no engine. It ends by itself when the engine
hangs; what to do after it died is for whoever runs it (`workers.recovery`).
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from types import FrameType

from orchestrator.wire import EngineInfo, FailureKind, InferDone, InferWork, Spent, identity_digest
from workers import stage
from workers.engine.endings import refuse_endless
from workers.engine.engine import Engine, Need
from workers.engine.failures import classify
from workers.engine.families import make_engine
from workers.engine.feed import feed, refuse_foreign_tokens
from workers.engine.in_flight import InFlight
from workers.engine.info import EngineMissing, engine_info
from workers.engine.known import answered
from workers.engine.ledger import Ledger
from workers.engine.sealer import Sealer, segment_files
from workers.engine.selection import open_groups, request_ids
from workers.engine.unanswered import unanswered
from workers.engine.watchdog import Watchdog
from workers.engine.weights import vocabulary_size
from workers.model_folders import whole_folder
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
    ledger, own = _ledger(work, sheets, out)
    earlier = ledger.sealed
    emit("progress", done=ledger.sealed, total=ledger.total)
    if done := ledger.benchmarks_done:
        emit("sealed", file=None, count=0, benchmarks_done=done)
    engine: Engine | None = None
    crowd, alone = _turns(work, sheets, ledger, lambda: engine is None or engine.wants_generations())
    if crowd.empty and alone.empty:
        return InferDone(
            computed=own,
            reused=earlier - own,
            seconds=work.spent.seconds,
            total_seconds=work.spent.total_seconds + time.monotonic() - started,
            tokens_computed=work.spent.tokens_computed,
            tokens_reused=work.spent.tokens_reused,
            engine=info,
            unanswered=unanswered(work.set_aside, ledger, sheets),
            restarts=work.restarts,
        )

    folder = whole_folder(work.model, work.model_folder) if work.model_folder else None
    if folder is not None:
        refuse_endless(folder, sheets.values())
    engine = _start(work, Need(ledger.open, _longest(sheets)), stop)
    emit("phase", phase="answering")
    settings = engine.settings | ({"footprint": work.footprint} if work.footprint else {})
    header = Header(identity_digest(work.identity), work.attempt, info.model_dump(mode="json"), settings)
    began = time.monotonic()
    computed, reused = engine.tokens_computed, engine.tokens_reused

    def spent() -> Spent:
        now = time.monotonic()
        return Spent(
            seconds=work.spent.seconds + now - began,
            total_seconds=work.spent.total_seconds + now - started,
            tokens_computed=work.spent.tokens_computed + engine.tokens_computed - computed,
            tokens_reused=work.spent.tokens_reused + engine.tokens_reused - reused,
            requests=own + sealer.count,
        )

    sealer = Sealer(out, header, ledger, seconds=work.seal_seconds, now=time.monotonic, spent=spent)
    vocabulary = vocabulary_size(folder) if folder is not None else None
    in_flight = InFlight(out)
    try:
        with Watchdog(work.hang_seconds) as watchdog:
            finished = all(
                feed(
                    engine,
                    refuse_foreign_tokens(turn, vocabulary),
                    sealer,
                    in_flight=in_flight,
                    step_ended=watchdog.step_ended,
                    stopping=stop,
                    alone=turn is alone,
                )
                for turn in (crowd, alone)
            )
    except StageFailure:
        raise
    except Exception as error:
        raise classify(error, work.model.name) from error
    if not finished:
        leave_stopped()
    fed = crowd.requests + alone.requests
    if sealer.count != fed:
        raise StageFailure(
            FailureKind.ENGINE,
            f"The engine was given {fed} requests and answered {sealer.count}. The rest can be computed by another "
            "attempt.",
        )
    total = spent()
    return InferDone(
        computed=total.requests,
        reused=earlier - own,
        seconds=total.seconds,
        total_seconds=total.total_seconds,
        tokens_computed=total.tokens_computed,
        tokens_reused=total.tokens_reused,
        engine=info,
        settings=settings,
        unanswered=unanswered(work.set_aside, ledger, sheets),
        restarts=work.restarts,
    )


def _turns(
    work: InferWork, sheets: dict[str, Path], ledger: Ledger, wants_generations: Callable[[], bool]
) -> tuple["_Turn", "_Turn"]:
    """What is fed together, and what is fed after it, each group alone. What is set aside is in neither."""
    aside = frozenset(request for one in work.set_aside for request in one.requests)
    alone = frozenset(work.alone) - aside
    last = frozenset(work.last) - aside - alone
    held = aside | alone | last

    def groups(wanted: Callable[[str], bool]) -> Iterator[list[Request]]:
        return open_groups(
            list(sheets.values()),
            lambda request: ledger.is_open(request) and wanted(request),
            slice_index=work.slice_index,
            slice_count=work.slice_count,
            wants_generations=wants_generations,
            take=ledger.take,
        )

    crowd = groups(lambda request: request not in held)
    if last:
        crowd = chain(crowd, groups(lambda request: request in last))
    return _Turn(crowd), _Turn(groups(lambda request: request in alone) if alone else iter(()))


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


def _ledger(work: InferWork, sheets: dict[str, Path], out: Path) -> tuple[Ledger, int]:
    """What is asked, less what sealed segments answer; those left in `out` by an earlier run of it count as well.

    Beside it how many of the answers are this attempt's own, from before it was started again.
    """
    ledger = Ledger(list(sheets))
    for position, sheet in enumerate(sheets.values()):
        ledger.ask(position, request_ids(sheet))
    own = 0
    for attempt, requests in answered([*map(Path, work.known), *segment_files(out)], identity_digest(work.identity)):
        count = ledger.seal(requests)
        own += count if work.restarts and attempt == work.attempt else 0
    return ledger, own


def _longest(sheets: dict[str, Path]) -> int:
    return max(read_info(sheet).longest for sheet in sheets.values())


class _Turn(Iterator[list[Request]]):
    """Groups on their way to the engine, whether there are any, and how many requests they held."""

    def __init__(self, groups: Iterator[list[Request]]) -> None:
        self._groups = groups
        self._first = next(groups, None)
        self.empty = self._first is None
        self.requests = 0

    def __next__(self) -> list[Request]:
        group = self._first or next(self._groups)
        self._first = None
        self.requests += len(group)
        return group


if __name__ == "__main__":
    stage.run(InferWork, infer)
