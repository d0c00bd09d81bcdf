"""The infer stage: `python -m workers.engine.infer WORK.json OUT` answers what sheets ask and no segment holds yet.

A work that ended well may leave its engine up for the next that would start the same one (`workers.stage`).

It opens no connection, knows no benchmark and scores nothing. SIGTERM makes it stop feeding, seal what is finished,
say `stopped` and end with exit code 3. When nothing is missing it starts no engine. It ends by itself when the engine
hangs; what to do after it died is for whoever runs it (`workers.recovery`).
"""

import time
from pathlib import Path

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
from workers.engine.selection import request_ids
from workers.engine.stopping import Stop, leave_stopped, leave_unheard
from workers.engine.turns import turns
from workers.engine.unanswered import unanswered
from workers.engine.watchdog import Watchdog
from workers.engine.weights import vocabulary_size
from workers.models.folders import whole_folder
from workers.segments import Header
from workers.sheets import read_info
from workers.stage import StageFailure, emit


class Inference:
    """The works of this process, one after the other, and the engine that they share."""

    def __init__(self) -> None:
        self._stop = Stop()
        self._engine: Engine | None = None
        self._started_for: InferWork | None = None
        self._need = Need(0, 0)
        """What the engine was started for."""

    def stays(self) -> bool:
        """Whether the engine is up and as a new one would be."""
        started_for = self._started_for
        return started_for is not None and not started_for.restarts and not self._stop.asked

    def idle(self) -> None:
        """Nothing is computed until the next work comes."""
        self._stop.nothing_to_seal()

    def infer(self, work: InferWork, out: Path) -> InferDone:
        """Answer the open requests of this work's slice into sealed segments below `out`."""
        started = time.monotonic()
        self._stop.seal_first()
        sheets = {name: Path(folder) for name, folder in work.sheets.items()}
        if self._engine is not None and not self._answers(work, _need(sheets)):
            leave_unheard()
        info = _info(work)
        _refuse_other_device(work, info)
        ledger, own = _ledger(work, sheets, out)
        earlier = ledger.sealed
        emit("progress", done=ledger.sealed, total=ledger.total)
        if done := ledger.benchmarks_done:
            emit("sealed", file=None, count=0, benchmarks_done=done)
        crowd, alone = turns(work, sheets, ledger, lambda: self._engine is None or self._engine.wants_generations())
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
        if self._engine is None:
            need = _need(sheets, ledger.open)
            self._engine = _start(work, need, self._stop)
            self._started_for, self._need = work, need
        engine = self._engine
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
                        stopping=self._stop,
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

    def _answers(self, work: InferWork, need: Need) -> bool:
        """Whether the engine that is up is the one that this work would start."""
        before = self._started_for
        return (
            before is not None
            and (work.identity, work.engine, work.settings) == (before.identity, before.engine, before.settings)
            and work.footprint == before.footprint
            and self._need.holds(need)
        )


def _info(work: InferWork) -> EngineInfo:
    try:
        return engine_info(work.engine)
    except EngineMissing as missing:
        raise StageFailure(FailureKind.ENGINE, str(missing)) from missing


def _start(work: InferWork, need: Need, stop: Stop) -> Engine:
    emit("phase", phase="loading weights")
    stop.nothing_to_seal()
    try:
        engine = make_engine(work, need)
        engine.start()
    except StageFailure:
        raise
    except Exception as error:
        raise classify(error, work.model.name) from error
    stop.seal_first()
    return engine


def _ledger(work: InferWork, sheets: dict[str, Path], out: Path) -> tuple[Ledger, int]:
    """What this slice is asked, less what sealed segments answer; those left in `out` by an earlier run count as well.

    Beside it how many of the answers are this attempt's own, from before it was started again.
    """
    ledger = Ledger(list(sheets))
    for position, sheet in enumerate(sheets.values()):
        ledger.ask(position, request_ids(sheet, slice_index=work.slice_index, slice_count=work.slice_count))
    own = 0
    for attempt, requests in answered([*map(Path, work.known), *segment_files(out)], identity_digest(work.identity)):
        count = ledger.seal(requests)
        own += count if work.restarts and attempt == work.attempt else 0
    return ledger, own


def _refuse_other_device(work: InferWork, info: EngineInfo) -> None:
    """Answers of one type of device are never kept as another's.

    A worker that was started before the driver was there takes its host for one without GPUs.

    Raises:
        StageFailure: what computes here is not what the order says.
    """
    ordered = work.identity.get("device_type")
    if ordered is not None and ordered != info.device_type:
        raise StageFailure(
            FailureKind.ENGINE,
            f"The order is for a {ordered} worker, and this host computes on {info.device_type}: its driver came or "
            "went since the worker started. Restart the worker.",
            lasting=True,
        )


def _need(sheets: dict[str, Path], requests: int = 0) -> Need:
    infos = [read_info(sheet) for sheet in sheets.values()]
    return Need(
        requests,
        longest=max((info.longest for info in infos), default=0),
        generates=any(info.generations != 0 for info in infos),
    )


if __name__ == "__main__":
    inference = Inference()
    stage.run(InferWork, inference.infer, stays=inference.stays, idle=inference.idle)
