"""Jobs, workers and speeds for tests of the plan: each names only what matters to it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from orchestrator.footprint import GIB, Footprint
from orchestrator.scheduling.estimates import Measure, Speeds
from orchestrator.scheduling.places import Policy, QueuedJob, WorkerView
from orchestrator.scheduling.scheduler import plan
from orchestrator.wire import EngineFamily, Stage

NOW = datetime(2026, 1, 1, tzinfo=UTC)


BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Other programs may run beside these tests."""


POLICY = Policy()


SPEEDS = Speeds([Measure(EngineFamily.VLLM, "a GPU", "s", 32, 2, 6000, 60.0, 120.0)])
"""100 requests/s after a minute, by models of four to eight billion weights."""


def job(id: int, **fields: Any) -> QueuedJob:
    given = {"evaluation": id, "stage": Stage.INFER, "engine": EngineFamily.VLLM, "created_at": NOW}
    return QueuedJob(id=id, **(given | fields))


def worker(name: str = "engine-1", **fields: Any) -> WorkerView:
    kind = "harness" if name.startswith("harness") else "engine"
    given: dict[str, Any] = {"boot": "b", "kind": kind, "slots": 1, "last_heartbeat": NOW, "device_type": "cpu"}
    if kind == "engine":
        given["engine"] = EngineFamily.VLLM
    return WorkerView(name=name, **(given | fields))


def pairs(queued: list[QueuedJob], workers: list[WorkerView]) -> list[tuple[int, str]]:
    return [(chosen.job.id, chosen.worker.name) for chosen in plan(queued, workers, POLICY, NOW)]


def gpus(name: str = "engine-1", **fields: Any) -> WorkerView:
    given = {"device_type": "cuda", "device": "a GPU", "memory_bytes": 80 * GIB, "slots": 8, "device_count": 8}
    return worker(name, **(given | fields))


def needing(gib: float, **fields: Any) -> Footprint:
    return Footprint(**{"weight_bytes": gib * GIB, "heads": 64, "key_heads": 8, **fields})


def given(queued: list[QueuedJob], workers: list[WorkerView], **fields: Any) -> list[tuple[int, str, int]]:
    chosen = plan(queued, workers, POLICY, fields.pop("now", NOW), **fields)
    return [(one.job.id, one.worker.name, one.devices) for one in chosen]


def sized(id: int, requests: int, **fields: Any) -> QueuedJob:
    return job(id, suite="s", parameters=5_000_000_000, requests=requests, **fields)


moments = st.integers(-3600, 60).map(lambda seconds: NOW + timedelta(seconds=seconds))


footprints = st.none() | st.builds(
    Footprint,
    weight_bytes=st.sampled_from([5.0, 30.0, 60.0, 140.0, 600.0]).map(lambda gib: gib * GIB),
    cache_bytes=st.sampled_from([0.0, 200_000.0]),
    heads=st.sampled_from([1, 14, 64]),
    key_heads=st.sampled_from([1, 2, 8]),
)


job_lists = st.lists(
    st.builds(
        QueuedJob,
        id=st.integers(1, 10_000),
        evaluation=st.integers(1, 50),
        stage=st.sampled_from(Stage),
        engine=st.sampled_from(EngineFamily),
        created_at=moments,
        turn_at=st.none() | moments,
        not_before=st.none() | moments,
        device_type=st.sampled_from([None, "cpu", "cuda"]),
        weights=st.sampled_from(["", "aaa", "bbb", "ccc"]),
        need=footprints,
        longest=st.sampled_from([None, 100, 8000]),
        requests=st.integers(0, 100_000),
        suite=st.just("s"),
        parameters=st.sampled_from([None, 5_000_000_000]),
        failed_on=st.frozensets(st.text("abc", min_size=1, max_size=1)),
        refused_by=st.frozensets(st.tuples(st.text("abc", min_size=1, max_size=1), st.just("b")), max_size=2),
    ),
    max_size=25,
    unique_by=lambda job: job.id,
)


worker_lists = st.lists(
    st.builds(
        WorkerView,
        name=st.text("abcdef", min_size=1, max_size=2),
        boot=st.just("b"),
        kind=st.sampled_from(["harness", "engine"]),
        slots=st.integers(0, 8),
        last_heartbeat=moments,
        engine=st.sampled_from([None, *EngineFamily]),
        device_type=st.sampled_from([None, "cpu", "cuda"]),
        device=st.just("a GPU"),
        memory_bytes=st.sampled_from([None, 24 * GIB, 80 * GIB]),
        until=st.none() | moments | st.integers(0, 7200).map(lambda seconds: NOW + timedelta(seconds=seconds)),
        stopping=st.booleans(),
        holding=st.lists(st.integers(1, 50), max_size=5).map(tuple),
        used=st.none() | st.integers(0, 9),
        weights=st.lists(st.sampled_from(["aaa", "bbb", "ccc"]), max_size=3, unique=True).map(tuple),
        warm=st.lists(st.sampled_from(["aaa", "bbb", "ccc"]), max_size=2, unique=True).map(tuple),
    ),
    max_size=8,
    unique_by=lambda worker: worker.name,
)
