"""A host that fails everything is held back; a bad model, a store that is away and a single crash hold nobody back."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from orchestrator import breaker, db, jobs
from orchestrator.modes import set_mode
from orchestrator.roster import load_workers, waiting_reasons
from orchestrator.tables import Health, Launch
from orchestrator.wire import FailureKind, Mode, Order, Stage
from tests.orchestrator.yard import Yard, make_suite

SICK, SOUND = "engine-1", "engine-2"
ENGINES = (SICK, SOUND)


@pytest.fixture
def yard(engine: Engine) -> Yard:
    """One benchmark for each evaluation."""
    return Yard(engine, suites={"small": make_suite("ARC")})


def give(yard: Yard, worker: str) -> Order:
    """A fresh evaluation's inference, given to this engine worker."""
    yard.submit()
    return give_next(yard, worker)


def give_next(yard: Yard, worker: str) -> Order:
    for other in ENGINES:
        yard.beat(other, stopping=True)
    yard.beat("harness-1", slots=4)
    for order in yard.tick():
        yard.complete(order)
    yard.beat(worker)
    yard.wait(1)
    (order,) = yard.tick()
    assert (order.work.stage, yard.sent[-1][0]) == (Stage.INFER, worker)
    return order


def fail(yard: Yard, worker: str, *, times: int = 1, kind: FailureKind = FailureKind.ENGINE) -> None:
    """So many evaluations fail on a worker; those that would be tried again are cancelled."""
    for _ in range(times):
        order = give(yard, worker)
        yard.fail(order, kind, "The engine died.")
        if not yard.evaluation(order.evaluation).state.is_final:
            yard.cancel(order.evaluation)


def complete(yard: Yard, worker: str) -> None:
    yard.complete(give(yard, worker))


def health(yard: Yard, worker: str = SICK) -> Health:
    with db.session(yard.engine, read_only=True) as session:
        row = session.get(Health, worker)
        assert row is not None
        return row


def test_a_host_is_held_back_when_three_evaluations_failed_in_a_row_while_another_host_succeeds(yard: Yard):
    fail(yard, SICK, times=2)
    complete(yard, SOUND)
    assert health(yard).held_back_until is None
    fail(yard, SICK)
    found = health(yard)
    assert found.held_back_until == yard.now + breaker.FIRST_HOLD
    assert (
        "attempts of 3 evaluations (1, 2, 4) failed here in a row, while engine-2 completed its jobs" in found.sentence
    )
    assert found.sentence.endswith("The last was in evaluation 4.")
    assert "The engine died" not in found.sentence, "everybody reads it, and a failure's sentence may name a model"
    assert [one["evaluation"] for one in found.failures] == [1, 2, 4]
    assert health(yard, SOUND).held_back_until is None


def test_where_nobody_succeeds_nobody_is_held_back(yard: Yard):
    fail(yard, SICK, times=5, kind=FailureKind.STORAGE)
    assert health(yard).held_back_until is None


def test_a_success_clears_what_was_held_against_a_host(yard: Yard):
    fail(yard, SICK, times=2)
    complete(yard, SOUND)
    complete(yard, SICK)
    assert health(yard).failures == []
    fail(yard, SICK, times=2)
    assert health(yard).held_back_until is None


def test_several_failures_of_one_evaluation_are_one(yard: Yard):
    order = give(yard, SICK)
    complete(yard, SOUND)
    for _ in range(2):
        yard.fail(order, FailureKind.STORAGE)
        yard.wait(600)
        order = give_next(yard, SICK)
    yard.fail(order, FailureKind.STORAGE)
    assert len(health(yard).failures) == 3
    assert health(yard).held_back_until is None


def test_a_job_that_fails_so_on_another_host_too_counts_against_neither(yard: Yard):
    fail(yard, SICK, times=2)
    complete(yard, SOUND)
    order = give(yard, SICK)
    yard.fail(order, FailureKind.ENGINE)
    assert health(yard).held_back_until is not None
    yard.fail(give_next(yard, SOUND), FailureKind.ENGINE)
    assert health(yard).held_back_until is None
    assert [one["evaluation"] for one in health(yard).failures] == [1, 2]
    assert health(yard, SOUND).failures == []


def test_failures_that_are_the_models_count_against_no_host(yard: Yard):
    fail(yard, SICK)
    complete(yard, SOUND)
    fail(yard, SICK, times=4, kind=FailureKind.INVALID_OUTPUT)
    assert len(health(yard).failures) == 1


def test_a_crash_that_takes_all_attempts_of_a_host_with_it_is_one_sign(yard: Yard):
    for _ in range(4):
        yard.submit()
    yard.beat("harness-1", slots=4)
    yard.beat("harness-2", stopping=True, slots=1)
    assert len(yard.tick()) == 4
    yard.beat("harness-1", slots=4, boot="second")
    assert len(health(yard, "harness-1").failures) == 1


def test_a_host_that_is_lost_after_long_work_is_not_sick(yard: Yard):
    give(yard, SICK)
    yard.wait(breaker.SOON.total_seconds() + 1)
    yard.beat(SICK, boot="second")
    assert health(yard).failures == []


def test_each_hold_is_twice_as_long_as_the_one_before_and_none_longer_than_an_hour():
    failures = [{"evaluation": number, "sentence": "It broke."} for number in range(3)]
    now = Yard.now
    holds = [breaker.judge(failures, times=times, others=[SOUND], now=now) for times in (0, 1, 5, 6, 1000)]
    assert [hold and hold.until - now for hold in holds] == [
        timedelta(minutes=minutes) for minutes in (1, 2, 32, 60, 60)
    ]
    assert [hold and hold.times for hold in holds] == [1, 2, 6, 7, 1001]


def test_a_failure_after_the_hold_holds_it_back_again_for_longer(yard: Yard):
    fail(yard, SICK, times=2)
    complete(yard, SOUND)
    fail(yard, SICK)
    yard.wait(breaker.FIRST_HOLD.total_seconds() + 1)
    fail(yard, SICK)
    assert health(yard).held_back_until == yard.now + 2 * breaker.FIRST_HOLD


def test_an_operator_may_say_that_a_host_is_sound(yard: Yard):
    fail(yard, SICK, times=2)
    complete(yard, SOUND)
    fail(yard, SICK)
    with db.session(yard.engine) as session:
        assert breaker.forgive(session, SICK)
        assert not breaker.forgive(session, "engine-9")
    found = health(yard)
    assert (found.held_back_until, found.times_held_back, found.failures, found.sentence) == (None, 0, [], "")


def test_a_fault_of_the_hub_blames_no_host(yard: Yard):
    order = give(yard, SICK)
    with db.session(yard.engine) as session:
        jobs.give_up(session, order.attempt, failure=FailureKind.HARNESS, sentence="The hub.", now=yard.now)
    with db.session(yard.engine, read_only=True) as session:
        assert session.get(Health, SICK) is None


def hold_back(yard: Yard) -> None:
    fail(yard, SICK, times=2)
    complete(yard, SOUND)
    fail(yard, SICK)


def test_a_host_that_is_held_back_gets_no_job_and_waiting_jobs_say_why(yard: Yard):
    hold_back(yard)
    evaluation = yard.submit()
    yard.beat("harness-1", slots=4)
    for order in yard.tick():
        yard.complete(order)
    yard.beat(SOUND, stopping=True)
    yard.beat(SICK)
    assert [order for order in yard.tick() if order.work.stage is Stage.INFER] == []
    with db.session(yard.engine, read_only=True) as session:
        reasons = waiting_reasons(session, yard.now)
    sentence = reasons[yard.job(evaluation, Stage.INFER).id]
    assert "held back until" in sentence
    assert "attempts of 3 evaluations" in sentence
    yard.wait(breaker.FIRST_HOLD.total_seconds())
    yard.beat(SICK)
    assert [order.evaluation for order in yard.tick() if order.work.stage is Stage.INFER] == [evaluation]


def test_after_the_hold_a_host_is_on_trial_with_one_job_at_a_time(yard: Yard):
    hold_back(yard)
    for _ in range(2):
        yard.submit()
    yard.beat("harness-1", slots=4)
    for order in yard.tick():
        yard.complete(order)
    yard.beat(SOUND, stopping=True)
    yard.wait(breaker.FIRST_HOLD.total_seconds())
    yard.beat(SICK, slots=2)
    yard.beat("harness-1", stopping=True)
    (trial,) = yard.tick()
    assert yard.tick() == []
    with db.session(yard.engine, read_only=True) as session:
        assert breaker.suspicions(session, now=yard.now)[SICK].sentence.startswith("on trial, with one job at a time")
    yard.complete(trial)
    assert len(yard.tick()) == 1


def test_an_operator_who_resumes_a_worker_clears_what_was_held_against_it(yard: Yard):
    hold_back(yard)
    with db.session(yard.engine) as session:
        set_mode(session, SICK, Mode.OPEN)
    assert health(yard).times_held_back == 0


def test_failures_of_jobs_that_were_given_out_before_the_hold_do_not_lengthen_it(yard: Yard):
    for _ in range(5):
        yard.submit()
    yard.beat("harness-1", slots=5)
    yard.beat("harness-2", stopping=True)
    orders = yard.tick()
    yard.submit()
    yard.beat("harness-1", slots=0)
    yard.beat("harness-2")
    yard.wait(1)
    yard.beat("harness-2")
    for order in yard.tick():
        yard.complete(order)
    for order in orders:
        yard.fail(order, FailureKind.HARNESS)
    found = health(yard, "harness-1")
    assert (found.held_back_until, found.times_held_back) == (yard.now + breaker.FIRST_HOLD, 1)


def launched(yard: Yard, worker: str, *, host: str) -> None:
    """A worker that the launcher of the cluster `gpu` started there."""
    with db.session(yard.engine) as session:
        session.add(Launch(id=worker, cluster="gpu", worker=worker, asked_at=yard.now))
    yard.beat(worker, host=host)


def test_a_sick_host_of_a_cluster_is_found_though_each_worker_there_has_a_new_name(yard: Yard):
    for number in range(3):
        name = f"engine-gpu-{number}"
        launched(yard, name, host="node3")
        complete_elsewhere(yard)
        order = give(yard, name)
        yard.fail(order, FailureKind.ENGINE)
        yard.cancel(order.evaluation)
        yard.beat(name, stopping=True)
    found = health(yard, "gpu/node3")
    assert found.held_back_until == yard.now + breaker.FIRST_HOLD
    launched(yard, "engine-gpu-3", host="node3")
    launched(yard, "engine-gpu-4", host="node4")
    with db.session(yard.engine, read_only=True) as session:
        slots = {one.name: one.slots for one in load_workers(session, now=yard.now)}
        assert breaker.held_hosts(session, "gpu", now=yard.now) == ["node3"]
        assert breaker.held_hosts(session, "gp", now=yard.now) == []
    assert (slots["engine-gpu-3"], slots["engine-gpu-4"]) == (0, 1)
    with db.session(yard.engine) as session:
        set_mode(session, "engine-gpu-3", Mode.OPEN)
        assert breaker.held_hosts(session, "gpu", now=yard.now) == []


def test_a_sick_host_is_found_by_its_name_though_its_pods_have_a_new_one_each_time(yard: Yard):
    for number in range(3):
        name = f"engine-pod-{number}"
        yard.beat(name, host="node3", is_host_named=True)
        complete_elsewhere(yard)
        order = give(yard, name)
        yard.fail(order, FailureKind.ENGINE)
        yard.cancel(order.evaluation)
        yard.beat(name, stopping=True)
    assert health(yard, "node3 (engine)").held_back_until == yard.now + breaker.FIRST_HOLD
    yard.beat("engine-pod-3", host="node3", is_host_named=True)
    yard.beat("harness-pod-3", host="node3", is_host_named=True)
    yard.beat("engine-4", host="node3")
    with db.session(yard.engine, read_only=True) as session:
        slots = {one.name: one.slots for one in load_workers(session, now=yard.now)}
    assert (slots["engine-pod-3"], slots["harness-pod-3"], slots["engine-4"]) == (0, 1, 1)


def complete_elsewhere(yard: Yard) -> None:
    complete(yard, SOUND)
    yard.beat(SOUND, stopping=True)
