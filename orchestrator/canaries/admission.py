"""Which engine workers may work, by what the present canaries found of their builds. Reads; never writes.

A build without a verdict gets nothing but the canary's own job. Where no canary is set for an engine family and type of
device, all may work.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from orchestrator.canaries.builds import Entry
from orchestrator.lifecycle import CanaryRunState, CanaryState
from orchestrator.tables import Canary, CanaryRun, Worker
from orchestrator.wire import EngineFamily

ENDED = (CanaryRunState.PASSED, CanaryRunState.DRIFTED, CanaryRunState.FAILED, CanaryRunState.ACCEPTED)
"""A run that has ended so counts; one that waits, or was abandoned, changes nothing."""
ADMITTED = (CanaryRunState.PASSED, CanaryRunState.ACCEPTED)


@dataclass(frozen=True)
class Admission:
    present: Mapping[tuple[EngineFamily, str], int] = field(default_factory=dict)
    """Canary by engine family and type of device."""
    last: Mapping[tuple[int, str], CanaryRunState] = field(default_factory=dict)
    """By canary and build, how its last run ended."""

    def of(self, worker: Worker) -> Entry:
        canary = self.canary_for(worker)
        if canary is None:
            return Entry.OPEN
        last = self.last.get((canary, worker.build)) if worker.build else None
        if last is None:
            return Entry.WAITS
        if last in ADMITTED:
            return Entry.OPEN
        return Entry.FAILED if last is CanaryRunState.FAILED else Entry.KEPT_OUT

    def canary_for(self, worker: Worker) -> int | None:
        if worker.kind != "engine" or worker.engine_family is None or worker.device_type is None:
            return None
        return self.present.get((worker.engine_family, worker.device_type))


def read_admission(session: Session) -> Admission:
    """As it is now: one row for each canary, and one for each of their runs."""
    canaries = session.exec(
        select(Canary.id, Canary.engine, Canary.device_type).where(is_present()).order_by(col(Canary.id))
    ).all()
    if not canaries:
        return Admission()
    present = {
        (EngineFamily(engine), device_type): number for number, engine, device_type in canaries if number is not None
    }
    runs = session.exec(
        select(CanaryRun.canary_id, CanaryRun.build, CanaryRun.state)
        .where(col(CanaryRun.canary_id).in_(present.values()), col(CanaryRun.state).in_(ENDED))
        # By number and not by time, so that neither a clock nor a run that was begun earlier overrules a later word.
        .order_by(col(CanaryRun.id))
    ).all()
    last: dict[tuple[int, str], CanaryRunState] = {}
    for number, build, state in runs:
        # One that could not be computed tells nothing of a build of which more is known.
        if state != CanaryRunState.FAILED or (number, build) not in last:
            last[number, build] = CanaryRunState(state)
    return Admission(present, last)


def is_present() -> ColumnElement[bool]:
    return col(Canary.state) == CanaryState.PRESENT
