"""Heartbeats of many workers that come at the same moment, with a broker in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import select

from orchestrator import broker, db, tasks
from orchestrator.tables import EngineVersion, Worker
from orchestrator.wire import EngineKnowledge, Heartbeat, Progress, Stage
from tests.orchestrator.yard import ENGINE, LEASE, Yard


@pytest.fixture
def hub(yard: Yard) -> tasks.Hub:
    return tasks.Hub(app=broker.make_app("memory://", name="test"), engine=yard.engine, suites=yard.suites, lease=LEASE)


def beat(yard: Yard, worker: str, *attempts: str, boot: str = "first", done: int = 0, **more: Any) -> tasks.Letter:
    made = Heartbeat.model_validate(
        {
            "worker": worker,
            "boot": boot,
            "kind": "engine",
            "at": yard.now,
            "slots": 1,
            "engine": ENGINE,
            "running": {attempt: Progress(done=done, total=16) for attempt in attempts},
            **more,
        }
    )
    return tasks.Letter(broker.HEARTBEAT_TASK, made.model_dump(mode="json"))


@contextmanager
def commits(yard: Yard) -> Iterator[list[object]]:
    seen: list[object] = []

    def note(connection: object) -> None:
        seen.append(connection)

    event.listen(yard.engine, "commit", note)
    yield seen
    event.remove(yard.engine, "commit", note)


def three_at_work(yard: Yard) -> dict[str, str]:
    """Three workers that infer; their attempts."""
    for number in range(3):
        yard.submit(revision=f"c{number}")
    yard.beat("harness-1", slots=6)
    for order in yard.tick():
        yard.complete(order)
    for worker in ("engine-1", "engine-2", "engine-3"):
        yard.beat(worker)
    before = len(yard.sent)
    yard.tick()
    orders = {worker: order.attempt for worker, order in yard.sent[before:] if order.work.stage is Stage.INFER}
    assert len(orders) == 3
    return orders


def test_heartbeats_of_one_moment_share_a_transaction_and_each_extends_its_own_lease(yard: Yard, hub: tasks.Hub):
    orders = three_at_work(yard)
    yard.wait(50)
    with commits(yard) as seen:
        tasks.take(hub, [beat(yard, worker, attempt, done=3) for worker, attempt in orders.items()])
    assert len(seen) == 1
    for evaluation in (1, 2, 3):
        job = yard.job(evaluation, Stage.INFER)
        assert (job.state.value, job.requests_done) == ("running", 3)
        assert yard.attempts(job)[0].lease_until > yard.now + LEASE


def test_of_one_process_the_last_heartbeat_counts_and_what_its_engine_knows_is_not_passed_over(
    yard: Yard, hub: tasks.Hub
):
    orders = three_at_work(yard)
    (worker, attempt), *_ = orders.items()
    known = EngineKnowledge(architectures=("LlamaForCausalLM",))
    first, second = beat(yard, worker, attempt, done=3, knowledge=known), beat(yard, worker, attempt, done=5)
    with commits(yard) as seen:
        tasks.take(hub, [first, second])
    assert len(seen) == 1
    assert {yard.job(evaluation, Stage.INFER).requests_done for evaluation in (1, 2, 3)} == {0, 5}
    with db.session(yard.engine, read_only=True) as session:
        assert session.exec(select(EngineVersion)).one().architectures == ["LlamaForCausalLM"]


def test_a_worker_that_lost_its_attempt_takes_nothing_from_those_that_beat_with_it(yard: Yard, hub: tasks.Hub):
    orders = three_at_work(yard)
    lost, *others = orders
    yard.wait(5)
    letters = [beat(yard, lost, boot="second"), *(beat(yard, worker, orders[worker], done=7) for worker in others)]
    tasks.take(hub, letters)
    states = sorted((job.state.value, job.requests_done) for job in _infers(yard))
    assert states == [("queued", 0), ("running", 7), ("running", 7)]


def test_one_process_after_the_other_of_one_name_are_heard_in_their_order(yard: Yard, hub: tasks.Hub):
    orders = three_at_work(yard)
    worker, *_ = orders
    tasks.take(hub, [beat(yard, worker, orders[worker]), beat(yard, worker, boot="second", at=yard.now)])
    with db.session(yard.engine, read_only=True) as session:
        assert session.exec(select(Worker.boot).where(Worker.name == worker)).one() == "second"
    assert "queued" in {job.state.value for job in _infers(yard)}


def test_an_attempt_that_seals_a_benchmark_opens_its_score_while_others_beat(yard: Yard, hub: tasks.Hub):
    orders = three_at_work(yard)
    letters = [beat(yard, worker, attempt, done=3) for worker, attempt in orders.items()]
    (worker, attempt), *_ = orders.items()
    sealed = {attempt: Progress(done=8, total=16, benchmarks_done=("ARC",))}
    letters[0] = beat(yard, worker, running=sealed)
    tasks.take(hub, letters)
    opened = [evaluation for evaluation in (1, 2, 3) if yard.states(evaluation)["score ARC"] == "queued"]
    assert len(opened) == 1
    assert yard.states(opened[0])["score MMLU"] == "blocked"


def _infers(yard: Yard) -> list[Any]:
    return [yard.job(evaluation, Stage.INFER) for evaluation in (1, 2, 3)]
