"""A worker's row, as its heartbeats describe it, and what its engine knows. Leases are in `orchestrator.heartbeats`."""

import logging
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from orchestrator import arrows
from orchestrator.canaries.builds import build_of
from orchestrator.doubles import doubles
from orchestrator.tables import EngineVersion, Launch, Worker
from orchestrator.wire import Heartbeat

log = logging.getLogger(__name__)

MOST_NAMES = 2000
"""Of what an engine knows."""

OVERTAKEN = timedelta(minutes=1)
"""A message of another boot that is older than the last one by less than this was overtaken; by more, the worker's
clock was set back."""


def lock_rows(session: Session, names: Collection[str]) -> dict[str, Worker]:
    """The rows of these workers, held until the transaction ends; none of one that was never heard of.

    Locked in the order of their names, as by every transaction that locks several.
    """
    statement = select(Worker).where(col(Worker.name).in_(names)).order_by(col(Worker.name)).with_for_update()
    return {row.name: row for row in session.exec(statement.execution_options(populate_existing=True))}


def note_worker(session: Session, worker: Worker | None, heartbeat: Heartbeat, *, now: datetime) -> bool:
    """Write the worker's row, which is locked; False for a heartbeat of an earlier boot that a later has overtaken."""
    if worker is None:
        worker = Worker(
            name=heartbeat.worker,
            kind=heartbeat.kind,
            boot=heartbeat.boot,
            first_seen=now,
            last_heartbeat=now,
            reported_at=heartbeat.at,
            host=_host(session, heartbeat),
        )
    elif timedelta(0) < worker.reported_at - heartbeat.at < OVERTAKEN and worker.boot != heartbeat.boot:
        return False
    elif timedelta(0) < worker.reported_at - heartbeat.at < OVERTAKEN and worker.boot == heartbeat.boot:
        # Overtaken by a moment: it lives, and what it said later counts.
        worker.last_heartbeat = now
        worker.stopping = worker.stopping or heartbeat.stopping
        session.add(worker)
        session.flush()
        return True
    elif worker.boot != heartbeat.boot:
        worker.host = _host(session, heartbeat) or worker.host
    engine = heartbeat.engine
    worker.kind = heartbeat.kind
    worker.boot = heartbeat.boot
    worker.slots = heartbeat.slots
    worker.stopping = heartbeat.stopping
    worker.engine_family = engine.family if engine else None
    worker.engine_version = engine.version if engine else None
    worker.device_type = engine.device_type if engine else None
    worker.device = engine.device if engine else None
    worker.device_count = max(engine.device_count, 1) if engine else 1
    worker.memory_bytes = engine.memory_bytes if engine else None
    build = build_of(engine, settings=arrows.clean(heartbeat.engine_settings)[:64]) if engine else None
    worker.build = build.digest if build else ""
    worker.build_facts = build.facts if build else None
    # Said by the worker's clock, kept by the hub's.
    worker.until = now + (heartbeat.until - heartbeat.at) if heartbeat.until else None
    worker.weights = list(heartbeat.weights)
    worker.warm = list(heartbeat.warm)
    worker.harnesses = list(heartbeat.harnesses)
    worker.address = heartbeat.address[:100] if heartbeat.address.isascii() and heartbeat.address.isprintable() else ""
    worker.sentence = heartbeat.sentence
    gpus = [gpu.model_dump(mode="json") for gpu in heartbeat.gpus]
    before = {gpu.get("uuid") for gpu in worker.gpus or ()}
    worker.gpus = gpus
    worker.last_heartbeat = now
    worker.reported_at = heartbeat.at
    session.add(worker)
    _note_knowledge(session, heartbeat, now=now)
    session.flush()
    if {gpu["uuid"] for gpu in gpus} - before and (why := doubles(session.exec(select(Worker)), now=now)):
        for name in why.keys() & {worker.name}:
            log.warning("no_work_for worker=%s sentence=%s", name, why[name])
    return True


def _note_knowledge(session: Session, heartbeat: Heartbeat, *, now: datetime) -> None:
    """Keep what the worker's engine knows: once for all workers that have this version of it."""
    engine, told = heartbeat.engine, heartbeat.knowledge
    if engine is None or told is None:
        return
    kept = session.get(EngineVersion, (engine.family, engine.version))
    said: dict[str, Any] = {
        "architectures": [arrows.clean(name)[:100] for name in told.architectures[:MOST_NAMES]],
        "dropped": {arrows.clean(a)[:100]: arrows.clean(b)[:40] for a, b in [*told.dropped.items()][:MOST_NAMES]},
        "quantisations": [arrows.clean(name)[:100] for name in told.quantisations[:MOST_NAMES]],
    }
    if kept is None:
        with suppress(IntegrityError), session.begin_nested():  # another worker's heartbeat was faster
            session.add(EngineVersion(engine=engine.family, version=engine.version, told_at=now, **said))
            session.flush()
    elif any(getattr(kept, name) != value for name, value in said.items()):
        for name, value in said.items():
            setattr(kept, name, value)
        kept.told_at = now
        session.add(kept)


def _host(session: Session, heartbeat: Heartbeat) -> str:
    """Where a worker runs whose name tells nothing: one that was launched, or whose operator named its host.

    Nothing for others, which keep their names, and of which one may be sick beside sound ones of the same host.
    """
    if not heartbeat.host:
        return ""
    host = arrows.clean(heartbeat.host)[:200]
    cluster = session.exec(select(Launch.cluster).where(Launch.worker == heartbeat.worker)).first()
    if cluster:
        return f"{cluster}/{host}"
    return f"{host} ({heartbeat.kind})" if heartbeat.is_host_named else ""
