"""What operators let a worker do: kept by the hub, obeyed by plans at once, told to the worker until it obeys."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from orchestrator import broker, db, notes
from orchestrator.errors import NotFound
from orchestrator.heartbeats import apply_heartbeat
from orchestrator.modes import set_mode
from orchestrator.reaper import forget_workers
from orchestrator.roster import load_workers
from orchestrator.tables import Worker
from orchestrator.tasks import Hub, take_heartbeats
from orchestrator.wire import Gpu, GpuState, Heartbeat, Mode

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LEASE = timedelta(seconds=60)


def heartbeat(worker: str = "gpu-1", **changes: object) -> Heartbeat:
    fields = {"worker": worker, "boot": "b1", "kind": "engine", "at": NOW, "slots": 2} | changes
    return Heartbeat.model_validate(fields)


def beat(engine: Engine, sent: Heartbeat) -> None:
    with db.session(engine) as session:
        apply_heartbeat(session, sent, lease=LEASE, now=NOW)


def want(engine: Engine, mode: Mode, worker: str = "gpu-1") -> None:
    with db.session(engine) as session:
        set_mode(session, worker, mode)


def test_a_worker_that_is_not_open_has_no_slots_before_it_heard_of_it(engine: Engine) -> None:
    beat(engine, heartbeat())
    found = []
    for mode in (Mode.DRAINED, Mode.PAUSED, Mode.OPEN):
        want(engine, mode)
        beat(engine, heartbeat(at=NOW + timedelta(seconds=1)))
        with db.session(engine, read_only=True) as session:
            (worker,) = load_workers(session, now=NOW)
        found.append((worker.slots, worker.sentence))
    assert found == [(0, "drained by an operator"), (0, "paused by an operator"), (2, "")]


def test_the_word_is_repeated_until_the_worker_says_the_same(engine: Engine) -> None:
    app = broker.make_app(f"memory://modes-{id(engine)}", name="test")
    hub = Hub(app=app, engine=engine, suites={}, lease=LEASE)
    told = []
    for mode, said in (("open", "open"), ("paused", "open"), ("paused", "paused"), ("open", "paused")):
        beat(engine, heartbeat())
        want(engine, Mode(mode))
        notes.leave_mode(app, "gpu-1", Mode.DRAINED)
        take_heartbeats(hub, [heartbeat(mode=Mode(said)).model_dump(mode="json")], now=NOW)
        told.append(notes.read_mode(app, "gpu-1"))
    assert told == [Mode.DRAINED, Mode.PAUSED, Mode.DRAINED, Mode.OPEN], "untouched where the worker obeys"


def test_no_news_and_a_note_that_makes_no_sense_change_nothing() -> None:
    app = broker.make_app("memory://no-news", name="test")
    assert notes.read_mode(app, "gpu-1") is None
    broker.shared_client(app).set(broker.KEY_PREFIX + "mode:gpu-1", "sideways", ex=9)
    assert notes.read_mode(app, "gpu-1") is None


def test_an_unknown_worker_is_refused_with_those_that_are_known(engine: Engine) -> None:
    with db.session(engine) as session, pytest.raises(NotFound, match="None has reported yet"):
        set_mode(session, "gpu-9", Mode.PAUSED)
    beat(engine, heartbeat())
    with db.session(engine) as session, pytest.raises(NotFound, match=r"no worker 'gpu-9'\. Known are gpu-1\."):
        set_mode(session, "gpu-9", Mode.PAUSED)


def test_a_paused_worker_is_not_forgotten_however_long_it_is_away(engine: Engine) -> None:
    for name in ("gpu-1", "gpu-2"):
        beat(engine, heartbeat(name))
    want(engine, Mode.PAUSED)
    assert forget_workers(engine, NOW + timedelta(days=30)) == 1
    with db.session(engine, read_only=True) as session:
        assert session.exec(select(Worker.name)).all() == ["gpu-1"]


def test_a_heartbeat_writes_down_what_the_policy_says_of_each_gpu(engine: Engine) -> None:
    sentence = "busy: another user's process 4211 holds 31 GB"
    gpu = Gpu(index=0, name="H100", state=GpuState.BUSY, sentence=sentence)
    beat(engine, heartbeat(slots=0, gpus=(gpu,), sentence=sentence))
    with db.session(engine, read_only=True) as session:
        worker = session.exec(select(Worker)).one()
        assert (worker.sentence, [Gpu.model_validate(one) for one in worker.gpus or ()]) == (sentence, [gpu])
