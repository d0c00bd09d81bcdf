"""What an engine knows comes with heartbeats, is kept once for each version, and is not forgotten when unsaid."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine
from sqlmodel import select

from orchestrator import db
from orchestrator.heartbeats import apply_heartbeat
from orchestrator.tables import EngineVersion
from orchestrator.wire import EngineFamily, EngineInfo, EngineKnowledge, Heartbeat

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
INFO = EngineInfo(family=EngineFamily.VLLM, version="0.32.0", device_type="cpu", device="a CPU")


def beat(engine: Engine, worker: str, knowledge: EngineKnowledge | None, *, second: int = 0) -> list[EngineVersion]:
    at = NOON + timedelta(seconds=second)
    heartbeat = Heartbeat(
        worker=worker, boot="b", kind="engine", at=at, slots=1, engine=INFO, knowledge=knowledge
    )  # fmt: skip
    with db.session(engine) as session:
        apply_heartbeat(session, heartbeat, lease=timedelta(seconds=60), now=at)
    with db.session(engine, read_only=True) as session:
        return list(session.exec(select(EngineVersion)))


def test_it_is_kept_once_for_all_workers_and_changed_when_it_changes(engine: Engine) -> None:
    assert beat(engine, "one", None) == []
    (kept,) = beat(engine, "one", EngineKnowledge(architectures=("A",), dropped={"B": "0.1"}), second=1)
    assert (kept.architectures, kept.dropped, kept.told_at) == (["A"], {"B": "0.1"}, NOON + timedelta(seconds=1))
    (again,) = beat(engine, "two", EngineKnowledge(architectures=("A",), dropped={"B": "0.1"}), second=2)
    assert again.told_at == kept.told_at
    (unsaid,) = beat(engine, "two", None, second=3)
    assert unsaid.architectures == ["A"]
    (changed,) = beat(engine, "two", EngineKnowledge(architectures=("A", "C")), second=4)
    assert (changed.architectures, changed.told_at) == (["A", "C"], NOON + timedelta(seconds=4))
