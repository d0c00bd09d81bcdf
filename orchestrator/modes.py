"""What operators let a worker do: open, drained or paused. Kept with the worker, and told to it until it says the same.

It alone writes `Worker.mode`. A worker that is not open gets no job whether it has heard of that or not.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlmodel import Session, col, select

from orchestrator import breaker
from orchestrator.errors import NotFound
from orchestrator.tables import Worker
from orchestrator.wire import Heartbeat, Mode


def set_mode(session: Session, name: str, mode: Mode, *, by: str = "", now: datetime | None = None) -> Worker:
    """Note what an operator wants of a worker, who that is (`by`) and since when; who asks for what it is already is
    not who did it. To open it is to say that its host is sound, too.

    Tell the worker after the commit: `orchestrator.notes.leave_mode`.

    Raises:
        NotFound: no worker of that name has reported.
    """
    worker = session.exec(select(Worker).where(Worker.name == name).with_for_update()).first()
    if worker is None:
        known = session.exec(select(Worker.name).order_by(col(Worker.name)).limit(10)).all()
        there = f"Known are {', '.join(known)}." if known else "None has reported yet."
        raise NotFound(f"There is no worker '{name}'. {there}")
    if mode is Mode.OPEN:
        worker.mode_by, worker.mode_since = "", None
    elif mode is not worker.mode:
        worker.mode_by, worker.mode_since = by, now or datetime.now(UTC)
    worker.mode = mode
    if mode is Mode.OPEN:
        breaker.forgive(session, name)
    session.add(worker)
    session.flush()
    return worker


def unheard(session: Session, heartbeats: Sequence[Heartbeat]) -> dict[str, Mode]:
    """What senders should be told again, because they say another; by name, without those that obey."""
    said = {one.worker: one.mode for one in heartbeats}
    wanted = session.exec(select(Worker.name, Worker.mode).where(col(Worker.name).in_(said)))
    return {name: Mode(mode) for name, mode in wanted if mode is not said[name]}
