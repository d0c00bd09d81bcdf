"""Two workers that were given the same GPU."""

import logging

import pytest

from orchestrator import db
from orchestrator.wire import Gpu, GpuState, Stage
from submissions.reading.queues import read_workers
from tests.orchestrator.yard import Yard


def beat(yard: Yard, worker: str, *uuids: str, **more: object) -> None:
    gpus = [Gpu(index=number, uuid=uuid, state=GpuState.IDLE, sentence="idle") for number, uuid in enumerate(uuids)]
    yard.beat(worker, slots=len(uuids), gpus=gpus, **more)  # type: ignore[arg-type]  # a heartbeat's own fields


def inferring(yard: Yard) -> list[str]:
    """The workers to which a round gives inference."""
    before = len(yard.sent)
    yard.tick()
    return [worker for worker, order in yard.sent[before:] if order.work.stage is Stage.INFER]


def test_the_second_worker_on_a_gpu_gets_no_work_until_the_first_is_gone_and_says_why(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        yard.submit(revision=f"c{number}")
    yard.beat("harness-1", slots=4)
    for order in yard.tick():
        yard.complete(order)
    beat(yard, "engine-1", "GPU-a")
    yard.wait(1)
    with caplog.at_level(logging.WARNING):
        beat(yard, "engine-2", "GPU-b", "GPU-a")
    assert "no_work_for worker=engine-2 sentence=GPU 1 (GPU-a) is worker engine-1's" in caplog.text
    assert inferring(yard) == ["engine-1"]
    with db.session(yard.engine, read_only=True) as session:
        shown = {one.name: (one.slots, one.sentence) for one in read_workers(session, yard.now)}
    assert shown["engine-1"] == (1, "")
    assert shown["engine-2"][0] == 0
    assert shown["engine-2"][1].startswith("GPU 1 (GPU-a) is worker engine-1's, which was there before.")
    beat(yard, "engine-1", "GPU-a", stopping=True)
    assert inferring(yard) == ["engine-2"]


def test_workers_with_gpus_of_their_own_and_those_that_name_none_are_no_seconds(yard: Yard) -> None:
    beat(yard, "engine-1", "GPU-a")
    beat(yard, "engine-2", "GPU-b")
    beat(yard, "engine-3", "")
    beat(yard, "engine-4", "")
    with db.session(yard.engine, read_only=True) as session:
        assert [one.slots for one in read_workers(session, yard.now)] == [1, 1, 1, 1]


def test_one_that_was_not_heard_of_for_a_minute_holds_no_gpu(yard: Yard) -> None:
    beat(yard, "engine-1", "GPU-a")
    yard.wait(61)
    beat(yard, "engine-2", "GPU-a")
    with db.session(yard.engine, read_only=True) as session:
        assert [one.sentence for one in read_workers(session, yard.now)] == ["", ""]
