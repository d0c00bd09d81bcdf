"""How often a failed attempt is made again, after which pause, and what costs nothing."""

import pytest

from orchestrator.budgets import Budgets, Tally, pause_before_retry
from orchestrator.wire import FailureKind, Progress, Spent, Stage
from tests.orchestrator.yard import Yard


def test_a_released_attempt_costs_nothing_and_the_job_is_queued_at_once(yard: Yard) -> None:
    evaluation = yard.submit()
    for _ in range(20):
        infer = yard.infer_order() if not yard.sent else yard.tick()[0]
        yard.report(infer.attempt, "released")
    job = yard.job(evaluation, Stage.INFER)
    assert (job.state.value, job.model_failures, job.infrastructure_failures) == ("queued", 0, 0)
    assert {attempt.outcome for attempt in yard.attempts(job)} == {"released"}


def test_an_attempt_for_which_a_worker_has_no_room_now_costs_nothing_and_is_made_again_after_a_pause(
    yard: Yard,
) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    for _ in range(20):
        yard.report(infer.attempt, "released", failure=FailureKind.STORAGE, sentence="No room now.")
        assert yard.tick() == []
        yard.wait(61)
        yard.beat("engine-1")
        (infer,) = yard.tick()
    job = yard.job(evaluation, Stage.INFER)
    assert (job.model_failures, job.infrastructure_failures) == (0, 0)


def test_engine_crashes_are_tried_three_times_with_growing_pauses(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.infer_order()
    pauses = []
    for _ in range(2):
        yard.fail(yard.sent[-1][1], FailureKind.ENGINE, "The engine was killed.", log_tail="Killed")
        start = yard.now
        while not yard.tick():
            yard.wait(1)
            yard.workers()
        pauses.append((yard.now - start).total_seconds())
    # The second is up to a quarter shorter, by the attempt's id; the yard's clock goes in whole seconds.
    assert pauses in ([0, 4], [0, 5])
    yard.fail(yard.sent[-1][1], FailureKind.ENGINE, "The engine was killed.", log_tail="Killed")
    job = yard.job(evaluation, Stage.INFER)
    assert (job.state.value, job.failure, job.sentence, job.log_tail, job.model_failures) == (
        "failed",
        FailureKind.ENGINE,
        "The engine was killed. (Tried 3 times.)",
        "Killed",
        3,
    )


def test_a_lost_host_does_not_use_up_the_models_tries(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.infer_order()
    for _ in range(5):
        yard.wait(61)
        assert yard.reap() == 1
        yard.wait(300)
        yard.workers()
        yard.tick()
    job = yard.job(evaluation, Stage.INFER)
    assert (job.state.value, job.model_failures, job.infrastructure_failures) == ("dispatched", 0, 5)


def test_hosts_lost_after_hours_of_inference_never_use_up_the_budget(yard: Yard) -> None:
    evaluation = yard.submit()
    order = yard.infer_order()
    answered = Progress(phase="answering", done=1, total=12, spent=Spent(requests=1))
    for _ in range(15):
        yard.report(order.attempt, "started")
        yard.beat(running={order.attempt: answered})
        yard.wait(2 * 3600)
        assert yard.reap() == 1
        yard.workers()
        (order,) = yard.tick()
    assert yard.job(evaluation, Stage.INFER).infrastructure_failures == 1


def test_a_job_that_answers_nothing_in_hours_and_then_loses_its_host_is_given_up(yard: Yard) -> None:
    evaluation = yard.submit()
    order = yard.infer_order()
    for _ in range(11):
        yard.report(order.attempt, "started")
        yard.wait(2 * 3600)
        assert yard.reap() == 1
        yard.wait(301)
        yard.workers()
        order = next(iter(yard.tick()), order)
    job = yard.job(evaluation, Stage.INFER)
    assert (job.state.value, job.failure) == ("failed", FailureKind.NODE_LOST)


def test_infrastructure_has_a_budget_too(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.infer_order()
    for _ in range(11):
        yard.fail(yard.sent[-1][1], FailureKind.STORAGE, "The store is full.")
        yard.wait(301)
        yard.workers()
        yard.tick()
    job = yard.job(evaluation, Stage.INFER)
    assert (job.state.value, job.sentence) == ("failed", "The store is full. (Tried 11 times.)")
    assert yard.evaluation(evaluation).failure is FailureKind.STORAGE


@pytest.mark.parametrize(
    "kind", [kind for kind in FailureKind if kind not in {"download", "engine", "node_lost", "storage"}]
)
def test_a_failure_that_a_new_attempt_would_meet_again_ends_the_job_at_once(kind: FailureKind) -> None:
    assert pause_before_retry(kind, Tally(1, 0), Budgets()) is None


def test_pauses_double_up_to_a_cap() -> None:
    budgets = Budgets(infrastructure_retries=1000)
    pauses = [pause_before_retry(FailureKind.STORAGE, Tally(0, n), budgets) for n in (1, 2, 3, 4, 8, 9, 1000)]
    assert [pause.total_seconds() for pause in pauses if pause is not None] == [0, 5, 10, 20, 300, 300, 300]


def test_a_pause_may_be_a_quarter_shorter_and_never_longer() -> None:
    pauses = [pause_before_retry(FailureKind.ENGINE, Tally(2, 0), Budgets(), jitter=share) for share in (0.0, 0.5, 1.0)]
    assert [pause.total_seconds() for pause in pauses if pause is not None] == [5, 4.375, 3.75]


def test_jobs_that_failed_together_are_not_tried_together(yard: Yard) -> None:
    for _ in range(2):
        yard.submit()
    yard.beat("harness-1", slots=8)
    for _ in range(2):
        for order in yard.tick():
            yard.fail(order, FailureKind.STORAGE)
    pauses = {yard.job(evaluation, Stage.PREPARE, name).not_before for evaluation in (1, 2) for name in ("ARC", "MMLU")}
    assert len(pauses) == 4
