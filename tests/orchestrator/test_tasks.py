"""What the hub does with workers' messages, with a broker in memory."""

import logging
import random
import string
from contextlib import ExitStack, closing
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from orchestrator import broker, db, notes, tasks
from orchestrator.wire import FailureKind, Heartbeat, ScoreWork, Stage, Update
from tests.orchestrator.yard import LEASE, Yard, done_of


@pytest.fixture
def hub(yard: Yard) -> tasks.Hub:
    app = broker.make_app("memory://", name="test")
    return tasks.Hub(app=app, engine=yard.engine, suites=yard.suites, lease=LEASE)


def update(attempt: str, event: str, yard: Yard, **fields: Any) -> dict[str, Any]:
    worker = fields.pop("worker", "") or yard.worker_of(attempt)
    made = Update.model_validate({"attempt": attempt, "worker": worker, "at": yard.now, "event": event, **fields})
    return made.model_dump(mode="json")


def heartbeat(yard: Yard, *attempts: str) -> dict[str, Any]:
    made = Heartbeat.model_validate(
        {
            "worker": "engine-1",
            "boot": "first",
            "kind": "engine",
            "at": yard.now,
            "slots": 1,
            "running": {attempt: {} for attempt in attempts},
        }
    )
    return made.model_dump(mode="json")


def take(hub: tasks.Hub, task: str, *payloads: Any) -> None:
    tasks.take(hub, [tasks.Letter(task, payload) for payload in payloads])


def test_a_message_of_an_unknown_kind_is_refused(hub: tasks.Hub, caplog: pytest.LogCaptureFixture) -> None:
    take(hub, "celery.ping", {"version": 1})
    assert "message_refused task=celery.ping" in caplog.text


def test_an_update_goes_into_the_database(hub: tasks.Hub, yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    take(hub, broker.UPDATE_TASK, update(infer.attempt, "completed", yard, done=done_of(infer)))
    assert yard.states(evaluation)["infer"] == "completed"
    assert notes.stop_requested(hub.app, infer.attempt) is None


def test_without_a_free_connection_an_update_is_kept_for_later_like_one_that_the_database_is_away_for(
    hub: tasks.Hub, yard: Yard
) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    done = update(infer.attempt, "completed", yard, done=done_of(infer))
    yard.engine.pool._timeout = 0.1  # type: ignore[attr-defined]  # half a minute is long for a test
    with ExitStack() as held:
        for _ in range(yard.engine.pool.size() + 10):  # type: ignore[attr-defined]  # with those above its size
            held.enter_context(closing(yard.engine.raw_connection()))
        with pytest.raises(OperationalError) as told:
            take(hub, broker.UPDATE_TASK, done)
    assert db.is_busy(told.value)
    take(hub, broker.UPDATE_TASK, done)
    assert yard.states(evaluation)["infer"] == "completed"


def test_the_sender_of_a_stale_update_is_asked_to_stop(hub: tasks.Hub, yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    yard.cancel(evaluation)
    take(hub, broker.UPDATE_TASK, update(infer.attempt, "started", yard))
    assert notes.stop_requested(hub.app, infer.attempt) == "The hub no longer counts on this attempt."


def test_an_update_that_names_another_worker_than_the_attempts_changes_nothing_and_stops_nothing(
    hub: tasks.Hub, yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    for event, more in (("failed", {}), ("completed", {"done": done_of(infer)}), ("released", {"preempted": True})):
        take(hub, broker.UPDATE_TASK, update(infer.attempt, event, yard, worker="gpu-9", **more))
    assert yard.states(evaluation)["infer"] == "dispatched"
    assert notes.stop_requested(hub.app, infer.attempt) is None, "its own worker goes on"
    said = f"foreign_update worker=gpu-9 sentence=Attempt {infer.attempt} is worker engine-1's: nothing was changed."
    assert caplog.text.count(said) == 3
    take(hub, broker.UPDATE_TASK, update(infer.attempt, "completed", yard, done=done_of(infer)))
    assert yard.states(evaluation)["infer"] == "completed"


def test_a_worker_with_a_stale_attempt_is_asked_to_stop_it(hub: tasks.Hub, yard: Yard) -> None:
    take(hub, broker.HEARTBEAT_TASK, heartbeat(yard, "stale-one"))
    assert notes.stop_requested(hub.app, "stale-one") == "The hub no longer counts on this attempt."


@pytest.mark.parametrize("task", [broker.UPDATE_TASK, broker.HEARTBEAT_TASK])
@pytest.mark.parametrize("payload", [None, 7, [], {}, {"version": 2, "attempt": "a"}, {"version": 1, "event": "ate"}])
def test_a_message_that_cannot_be_read_is_refused_with_a_sentence(
    hub: tasks.Hub, yard: Yard, task: str, payload: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = yard.rows()
    with caplog.at_level(logging.ERROR):
        take(hub, task, payload)
    assert "neighbouring releases of Evalyard" in caplog.text
    assert yard.rows() == before


def test_a_result_that_the_hub_cannot_keep_fails_the_job_instead_of_running_it_for_ever(
    hub: tasks.Hub, yard: Yard
) -> None:
    evaluation = yard.submit()
    yard.complete(yard.infer_order())
    arc, _ = yard.tick()
    done = done_of(arc)
    uncounted = done["scores"][0] | {"metric": "bleu"}
    done["scores"] += [uncounted, uncounted]  # the same number twice: the database refuses it
    take(hub, broker.UPDATE_TASK, update(arc.attempt, "completed", yard, done=done))
    job = yard.job(evaluation, Stage.SCORE, "ARC")
    assert (job.state.value, job.failure) == ("failed", FailureKind.HARNESS)
    assert "could not keep the result" in job.sentence
    assert yard.scores(evaluation) == []


def test_an_update_that_the_database_cannot_even_look_up_takes_no_other_with_it(hub: tasks.Hub, yard: Yard) -> None:
    evaluation = yard.submit()
    yard.workers()
    arc, mmlu = yard.tick()
    sent = [update("no\x00name", event, yard, worker="w") for event in ("completed", "failed")]
    sent += [update(order.attempt, "completed", yard, done=done_of(order)) for order in (arc, mmlu)]
    take(hub, broker.UPDATE_TASK, *sent)
    assert yard.states(evaluation)["infer"] == "queued"


@pytest.mark.parametrize("stage", [Stage.INFER, Stage.SCORE])
def test_a_name_that_is_too_long_for_an_index_is_a_fault_of_its_update_and_no_database_that_is_away(
    hub: tasks.Hub, yard: Yard, stage: Stage
) -> None:
    long = "".join(random.Random(1).choices(string.printable, k=20_000))
    evaluation = yard.submit()
    order = yard.infer_order()
    done = done_of(order, computed=1000)
    if stage is Stage.INFER:
        done["engine"]["device"] = long
    else:
        yard.complete(order)
        order, _ = yard.tick()
        done = done_of(order)
        done["scores"] += [done["scores"][0] | {"task": long}]
    take(hub, broker.UPDATE_TASK, update(order.attempt, "completed", yard, done=done))
    benchmark = order.work.benchmark.name if isinstance(order.work, ScoreWork) else ""
    assert not yard.job(evaluation, stage, benchmark).state.is_held


def test_one_heartbeat_leaves_a_bounded_number_of_notes_whatever_it_lists(hub: tasks.Hub, yard: Yard) -> None:
    listed = [f"stale-{number:04}" for number in range(1000)]
    take(hub, broker.HEARTBEAT_TASK, heartbeat(yard, *listed))
    asked = [notes.stop_requested(hub.app, one) is not None for one in listed]
    assert sum(asked) == tasks.MOST_STOPPED
