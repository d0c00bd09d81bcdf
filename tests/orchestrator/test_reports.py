"""Updates and heartbeats: what is believed, what is refused, and what follows for leases."""

from datetime import timedelta

import pytest
from sqlalchemy import inspect

from orchestrator import db
from orchestrator.reaper import unwind
from orchestrator.roster import load_workers
from orchestrator.wire import FailureKind, Order, Progress, Stage
from tests.orchestrator.yard import LEASE, Yard, done_of


@pytest.mark.parametrize("event", ["started", "completed", "failed", "released"])
def test_a_late_report_from_a_replaced_attempt_is_ignored(yard: Yard, event: str) -> None:
    yard.submit()
    old = yard.infer_order()
    yard.wait(61)
    yard.reap()
    yard.workers()
    (new,) = yard.tick()
    before = yard.rows()
    verdict = yard.report(old.attempt, event, done=done_of(old), failure=FailureKind.OUT_OF_MEMORY)
    assert not verdict.accepted
    assert yard.rows() == before
    assert yard.complete(new).accepted


@pytest.mark.parametrize("event", ["started", "completed", "failed", "released"])
def test_a_report_of_an_attempt_that_nobody_made_is_ignored(yard: Yard, event: str) -> None:
    yard.submit()
    before = yard.rows()
    assert not yard.report("never-heard-of", event).accepted
    assert yard.rows() == before


def test_the_index_that_the_reaper_looks_at_holds_no_finished_attempt(yard: Yard) -> None:
    with db.session(yard.engine, read_only=True) as session:
        (index,) = [
            one for one in inspect(session.connection()).get_indexes("attempt") if one["name"] == "attempt_lease"
        ]
    options = index["dialect_options"]
    assert str(options[f"{yard.engine.dialect.name}_where"]).strip("()") == "ended_at IS NULL"


def test_the_same_completion_twice_counts_once(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.complete(yard.infer_order())
    arc, _ = yard.tick()
    yard.complete(arc)
    before = yard.rows()
    assert not yard.complete(arc).accepted
    assert yard.rows() == before
    assert len(yard.scores(evaluation)) == 3


def test_the_same_start_twice_changes_nothing_more(yard: Yard) -> None:
    yard.submit()
    infer = yard.infer_order()
    yard.report(infer.attempt, "started")
    before = yard.rows()
    yard.wait(1)
    assert yard.report(infer.attempt, "started").accepted
    assert yard.rows() == before


def test_a_completion_is_believed_though_the_start_was_lost(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.complete(yard.infer_order())
    assert yard.states(evaluation)["infer"] == "completed"


def test_a_start_that_comes_after_the_end_changes_nothing(yard: Yard) -> None:
    yard.submit()
    infer = yard.infer_order()
    yard.complete(infer)
    before = yard.rows()
    assert not yard.report(infer.attempt, "started").accepted
    assert yard.rows() == before


def test_a_completion_without_its_result_is_a_failure(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.workers()
    arc, _ = yard.tick()
    yard.report(arc.attempt, "completed")
    job = yard.job(evaluation, Stage.PREPARE, "ARC")
    assert (job.failure, job.sentence) == (FailureKind.HARNESS, "The prepare stage ended without its result.")


def test_text_that_a_database_cannot_hold_is_mended_not_refused(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.fail(yard.infer_order(), FailureKind.WEIGHTS, "Bad \x00 byte.", log_tail="x" * 50_000 + "\x00end")
    job = yard.job(evaluation, Stage.INFER)
    assert job.sentence == "Bad \ufffd byte."
    assert job.log_tail.endswith("\ufffdend")
    assert len(job.log_tail) == 16_000


def test_heartbeats_keep_a_lease_alive_for_as_long_as_they_come(yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    for _ in range(10):
        yard.wait(50)
        assert yard.beat("engine-1", running={infer.attempt: Progress(phase="answering", done=3, total=16)}) == []
        assert yard.reap() == 0
    job = yard.job(evaluation, Stage.INFER)
    assert (job.state.value, job.phase, job.requests_done, job.requests_total) == ("running", "answering", 3, 16)
    (attempt,) = yard.attempts(job)
    assert attempt.lease_until == yard.now + LEASE


def test_a_heartbeat_says_that_the_attempt_runs_when_the_start_was_lost(yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    yard.beat("engine-1", running={infer.attempt: Progress()})
    assert yard.states(evaluation)["infer"] == "running"


def test_a_heartbeat_without_the_attempt_does_not_extend_its_lease(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.infer_order()
    for _ in range(2):
        yard.wait(31)
        yard.beat("engine-1")
    assert yard.reap() == 1
    assert yard.states(evaluation)["infer"] == "queued"


def test_a_worker_with_stale_attempts_is_told_all_of_them_and_changes_no_job(yard: Yard) -> None:
    yard.submit()
    old = yard.infer_order()
    yard.wait(61)
    yard.reap()
    before = yard.rows()
    late = Progress(done=16, total=16, benchmarks_done=("ARC", "MMLU"))
    assert yard.beat("engine-1", running={old.attempt: late, "unknown": Progress()}) == sorted([old.attempt, "unknown"])
    assert yard.rows() == before


def test_attempts_of_an_earlier_boot_are_queued_again_at_once(yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    yard.beat("engine-1", running={infer.attempt: Progress()})
    yard.wait(2)
    yard.beat("engine-1", boot="second")
    job = yard.job(evaluation, Stage.INFER)
    assert (job.state.value, job.infrastructure_failures, job.not_before) == ("queued", 1, None)
    (attempt,) = yard.attempts(job)
    assert (attempt.outcome, attempt.failure) == ("expired", FailureKind.NODE_LOST)
    assert attempt.sentence == "Worker engine-1 was started again; the attempt before is lost."


def test_a_new_boot_may_take_over_an_order_that_waited_in_its_queue(yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    yard.beat("engine-1", boot="second", running={infer.attempt: Progress()})
    yard.beat("engine-1", boot="second", running={infer.attempt: Progress()})
    assert yard.states(evaluation)["infer"] == "running"


def test_a_heartbeat_that_was_overtaken_changes_nothing(yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    late = yard.now
    yard.wait(3)
    yard.beat("engine-1", boot="second", running={infer.attempt: Progress()})
    assert yard.beat("engine-1", boot="first", at=late) == []
    assert yard.states(evaluation)["infer"] == "running"


def test_a_worker_whose_clock_was_set_back_is_heard_again(yard: Yard) -> None:
    yard.submit()
    infer = yard.infer_order()
    yard.wait(50)
    yard.beat("engine-1", at=yard.now - timedelta(days=365), running={infer.attempt: Progress()})
    yard.wait(50)
    assert yard.reap() == 0


@pytest.mark.parametrize("seconds", [1, 59, 120, 299, 4000])
def test_a_clock_that_was_set_back_a_little_does_not_silence_a_worker(yard: Yard, seconds: int) -> None:
    yard.submit()
    infer = yard.infer_order()
    for _ in range(3):
        yard.wait(50)
        yard.beat("engine-1", at=yard.now - timedelta(seconds=seconds + 200), running={infer.attempt: Progress()})
        assert yard.reap() == 0


def test_an_attempt_that_was_taken_over_is_the_new_boots_own(yard: Yard) -> None:
    """Its completion may be overtaken by the heartbeat that no longer lists it."""
    evaluation = yard.submit()
    infer = yard.infer_order()
    yard.beat("engine-1", boot="second", running={infer.attempt: Progress()})
    yard.beat("engine-1", boot="second")
    assert yard.complete(infer).accepted
    assert yard.states(evaluation)["infer"] == "completed"


def test_the_clocks_of_workers_do_not_decide_about_leases(yard: Yard) -> None:
    yard.submit()
    infer = yard.infer_order()
    yard.beat("engine-1", at=yard.now + timedelta(days=1), running={infer.attempt: Progress()})
    yard.wait(61)
    assert yard.reap() == 1


def test_three_overdue_leases_meet_three_ends_in_one_round(yard: Yard) -> None:
    """Within its budget: queued. Budget used up: failed. Heard of in the meantime: left alone."""
    lost, exhausted, heard = yard.submit(), yard.submit(), yard.submit()
    yard.beat("engine-1", slots=3)
    yard.beat("harness-1", slots=6)
    for order in yard.tick():
        yard.complete(order)
    orders = {order.evaluation: order for order in yard.tick()}
    assert sorted(orders) == [lost, exhausted, heard]
    for _ in range(10):
        current = next(order for _, order in reversed(yard.sent) if order.evaluation == exhausted)
        yard.fail(current, FailureKind.STORAGE)
        yard.wait(301)
        yard.beat("engine-1", slots=3, running={orders[lost].attempt: Progress(), orders[heard].attempt: Progress()})
        yard.tick()
    yard.wait(59)
    yard.beat("engine-1", slots=3, running={orders[heard].attempt: Progress()})
    yard.wait(2)
    assert yard.reap() == 2
    states = {evaluation: yard.states(evaluation)["infer"] for evaluation in (lost, exhausted, heard)}
    assert states == {lost: "queued", exhausted: "failed", heard: "running"}
    assert "was not heard of until the lease ended. (Tried 11 times.)" in yard.evaluation(exhausted).sentence


def test_a_lost_attempt_is_given_up_soon_though_the_hubs_clock_was_set_back(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.infer_order()
    yard.wait(-7200)
    assert unwind(yard.engine, yard.now, lease=LEASE) == 1
    yard.wait(LEASE.total_seconds() + 1)
    assert yard.reap() == 1
    assert yard.states(evaluation)["infer"] == "queued"


def test_a_pause_lasts_no_longer_though_the_hubs_clock_was_set_back(yard: Yard) -> None:
    yard.submit()
    yard.fail(yard.infer_order(), FailureKind.STORAGE)
    again = give_again(yard)
    assert again is not None
    yard.fail(again, FailureKind.STORAGE)
    assert give_again(yard) is None
    yard.wait(-7200)
    assert unwind(yard.engine, yard.now, lease=LEASE) == 1
    assert give_again(yard) is not None


def test_nothing_is_moved_while_no_clock_was_set(yard: Yard) -> None:
    yard.submit()
    yard.infer_order()
    before = yard.rows()
    assert unwind(yard.engine, yard.now, lease=LEASE) == 0
    assert yard.rows() == before


def give_again(yard: Yard) -> Order | None:
    yard.workers()
    return next(iter(yard.tick()), None)


def test_what_a_worker_says_counts_though_its_clock_was_set_back_by_an_hour(yard: Yard) -> None:
    yard.beat("engine-1", slots=2)
    yard.wait(3)
    yard.beat("engine-1", slots=0, at=yard.now - timedelta(hours=1))
    with db.session(yard.engine, read_only=True) as session:
        (found,) = load_workers(session, now=yard.now)
    assert (found.slots, found.last_heartbeat) == (0, yard.now)
