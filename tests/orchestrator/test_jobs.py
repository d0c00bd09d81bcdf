import threading
from datetime import timedelta

import pytest

from orchestrator import claims, db
from orchestrator.budgets import Budgets, Tally, pause_before_retry
from orchestrator.errors import NotFound, WrongState
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.wire import FailureKind, Progress, Stage, Unanswered
from tests.orchestrator.yard import LEASE, Yard


def test_a_new_evaluation_prepares_each_benchmark_and_blocks_the_rest(yard: Yard) -> None:
    evaluation = yard.submit()
    assert yard.states(evaluation) == {
        "prepare ARC": "queued",
        "prepare MMLU": "queued",
        "infer": "blocked",
        "score ARC": "blocked",
        "score MMLU": "blocked",
    }
    assert yard.evaluation(evaluation).state is EvaluationState.QUEUED


def test_an_undisturbed_evaluation_goes_through_every_state_and_ends_finished(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.workers()
    prepares = yard.tick()
    assert yard.evaluation(evaluation).state is EvaluationState.PREPARING
    for order in prepares:
        yard.complete(order)
    (infer,) = yard.tick()
    yard.report(infer.attempt, "started")
    assert yard.states(evaluation)["infer"] == "running"
    assert yard.evaluation(evaluation).state is EvaluationState.RUNNING
    yard.complete(infer)
    assert yard.evaluation(evaluation).state is EvaluationState.SCORING
    yard.wait(10)
    yard.workers()
    yard.finish()
    row = yard.evaluation(evaluation)
    assert (row.state, row.failure, row.sentence, row.ended_at) == (EvaluationState.FINISHED, None, "", yard.now)
    assert set(yard.states(evaluation).values()) == {"completed"}
    moves = [event.details for event in yard.events(evaluation) if event.name == "evaluation_moved"]
    assert [move["to"] for move in moves] == ["preparing", "running", "scoring", "finished"]


def test_every_move_of_a_job_leaves_one_event(yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    yard.report(infer.attempt, "started")
    yard.report(infer.attempt, "released", sentence="The GPU is wanted.")
    (again,) = yard.tick()
    yard.complete(again)
    of_infer = [event.name for event in yard.events(evaluation) if event.job_id == infer.job]
    assert of_infer == [
        "job_queued",
        "job_claimed",
        "job_started",
        "job_requeued",
        "job_claimed",
        "job_completed",
    ]


def test_a_benchmark_is_scored_while_the_others_are_still_answered(yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    progress = Progress(phase="answering", done=8, total=16, benchmarks_done=("ARC",))
    yard.beat("engine-1", running={infer.attempt: progress})
    assert yard.states(evaluation) == {
        "prepare ARC": "completed",
        "prepare MMLU": "completed",
        "infer": "running",
        "score ARC": "queued",
        "score MMLU": "blocked",
    }
    (score,) = yard.tick()
    assert score.work.stage is Stage.SCORE
    assert score.work.identity == infer.work.identity  # type: ignore[union-attr]  # an infer order's work
    yard.complete(score)
    assert [row.benchmark for row in yard.scores(evaluation) if row.metric == "value"] == ["ARC"]
    assert yard.evaluation(evaluation).state is EvaluationState.RUNNING


def test_a_benchmark_that_cannot_be_prepared_fails_alone(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.workers()
    arc, mmlu = yard.tick()
    yard.fail(arc, FailureKind.DATASET, "Dataset ai2_arc is not in the mirror.")
    assert yard.states(evaluation)["infer"] == "blocked"
    yard.complete(mmlu)
    (infer,) = yard.tick()
    assert list(infer.work.sheets) == ["MMLU"]  # type: ignore[union-attr]  # an infer order's work
    yard.complete(infer)
    yard.finish()
    assert yard.states(evaluation) == {
        "prepare ARC": "failed",
        "prepare MMLU": "completed",
        "infer": "completed",
        "score ARC": "failed",
        "score MMLU": "completed",
    }
    score = yard.job(evaluation, Stage.SCORE, "ARC")
    assert (score.failure, score.sentence) == (FailureKind.DATASET, "Dataset ai2_arc is not in the mirror.")
    row = yard.evaluation(evaluation)
    assert (row.state, row.average, row.failure) == (EvaluationState.FINISHED, None, None)
    assert row.sentence == "No score for ARC, so there is no average. Dataset ai2_arc is not in the mirror."


def test_an_evaluation_without_any_prepared_benchmark_fails(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.workers()
    for order in yard.tick():
        yard.fail(order, FailureKind.TOKENIZER, "The tokenizer is missing.")
    assert set(yard.states(evaluation).values()) == {"failed"}
    row = yard.evaluation(evaluation)
    assert (row.state, row.failure) == (EvaluationState.FAILED, FailureKind.TOKENIZER)
    assert row.sentence == "No benchmark could be prepared. The tokenizer is missing."
    assert row.ended_at == yard.now


def test_an_infer_that_fails_for_good_fails_what_was_not_answered_and_keeps_what_was(yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    yard.beat("engine-1", running={infer.attempt: Progress(benchmarks_done=("ARC",))})
    yard.fail(infer, FailureKind.OUT_OF_MEMORY, "It needs 90 GiB.")
    assert [order.work.stage for order in yard.tick()] == [Stage.SCORE]
    assert yard.states(evaluation)["score MMLU"] == "failed"
    yard.complete(yard.sent[-1][1])
    yard.finish()
    assert yard.states(evaluation)["score ARC"] == "completed"
    row = yard.evaluation(evaluation)
    assert (row.state, row.sentence) == (
        EvaluationState.FINISHED,
        "No score for MMLU, so there is no average. It needs 90 GiB.",
    )


def test_a_request_that_no_engine_answers_fails_its_benchmark_alone_and_says_why(yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    sentence = "Request 0123 (task arc, document 17) kills the engine. There is no score for ARC."
    unanswered = (Unanswered(requests=("0123",), benchmarks=("ARC",), sentence=sentence),)
    yard.complete(infer, unanswered=unanswered)
    yard.finish()
    score = yard.job(evaluation, Stage.SCORE, "ARC")
    assert (score.state, score.failure, score.sentence) == (JobState.FAILED, FailureKind.ENGINE, sentence)
    assert yard.states(evaluation)["score MMLU"] == "completed"
    row = yard.evaluation(evaluation)
    assert (row.state, row.average) == (EvaluationState.FINISHED, None)
    assert row.sentence == f"No score for ARC, so there is no average. {sentence}"

    yard.retry(evaluation)
    assert yard.states(evaluation)["score ARC"] == "blocked"
    yard.finish()
    assert yard.states(evaluation)["score ARC"] == "completed"
    assert yard.evaluation(evaluation).average is not None


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
    assert pauses == [0, 5]
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
    for _ in range(15):
        yard.report(order.attempt, "started")
        yard.wait(2 * 3600)
        assert yard.reap() == 1
        yard.workers()
        (order,) = yard.tick()
    assert yard.job(evaluation, Stage.INFER).infrastructure_failures == 1


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


def test_cancel_works_before_anything_was_given_out(yard: Yard) -> None:
    evaluation = yard.submit()
    assert yard.cancel(evaluation) == []
    assert set(yard.states(evaluation).values()) == {"cancelled"}
    row = yard.evaluation(evaluation)
    assert (row.state, row.failure, row.sentence, row.ended_at) == (
        EvaluationState.CANCELLED,
        FailureKind.CANCELLED,
        "Cancelled on request.",
        yard.now,
    )
    yard.workers()
    assert yard.tick() == []


def test_cancel_of_a_dispatched_attempt_names_it_so_that_it_can_be_stopped(yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    assert yard.cancel(evaluation) == [infer.attempt]
    (attempt,) = yard.attempts(yard.job(evaluation, Stage.INFER))
    assert (attempt.outcome, attempt.ended_at) == ("cancelled", yard.now)


def test_cancel_of_a_running_attempt_makes_its_later_messages_stale(yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    yard.report(infer.attempt, "started")
    yard.cancel(evaluation)
    before = yard.rows()
    assert not yard.complete(infer).accepted
    assert yard.beat("engine-1", running={infer.attempt: Progress(done=1, total=2)}) == [infer.attempt]
    assert yard.rows() == before


def test_cancel_during_scoring_keeps_the_scores_that_are_there(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.complete(yard.infer_order())
    arc, mmlu = yard.tick()
    yard.complete(arc)
    assert yard.cancel(evaluation) == [mmlu.attempt]
    assert [row.benchmark for row in yard.scores(evaluation) if row.metric == "value"] == ["ARC"]
    row = yard.evaluation(evaluation)
    assert (row.state, row.average) == (EvaluationState.CANCELLED, None)


def test_cancel_while_a_job_pauses_after_a_failure(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.fail(yard.infer_order(), FailureKind.ENGINE)
    assert yard.cancel(evaluation) == []
    assert yard.states(evaluation)["infer"] == "cancelled"


def test_what_has_ended_cannot_be_cancelled(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.cancel(evaluation)
    with pytest.raises(WrongState, match=f"Evaluation {evaluation} is already cancelled"):
        yard.cancel(evaluation)
    with pytest.raises(NotFound, match="no evaluation 99"):
        yard.cancel(99)


def test_retry_queues_a_failed_infer_again_with_fresh_budgets(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.fail(yard.infer_order(), FailureKind.OUT_OF_MEMORY, "Too big.")
    assert yard.tick() == []
    assert yard.evaluation(evaluation).state is EvaluationState.FAILED
    assert yard.retry(evaluation) == 3  # infer and the two scores that fell with it
    assert yard.states(evaluation) == {
        "prepare ARC": "completed",
        "prepare MMLU": "completed",
        "infer": "queued",
        "score ARC": "blocked",
        "score MMLU": "blocked",
    }
    row = yard.evaluation(evaluation)
    assert (row.state, row.failure, row.sentence, row.ended_at) == (EvaluationState.RUNNING, None, "", None)
    job = yard.job(evaluation, Stage.INFER)
    assert (job.model_failures, job.failure, job.sentence) == (0, None, "")
    yard.finish()
    assert yard.evaluation(evaluation).state is EvaluationState.FINISHED


def test_retry_of_a_failed_benchmark_prepares_it_answers_it_and_makes_the_average(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.workers()
    arc, mmlu = yard.tick()
    yard.fail(arc, FailureKind.DATASET, "Missing.")
    yard.complete(mmlu)
    yard.finish()
    assert yard.evaluation(evaluation).average is None
    yard.retry(evaluation)
    assert yard.states(evaluation) == {
        "prepare ARC": "queued",
        "prepare MMLU": "completed",
        "infer": "blocked",
        "score ARC": "blocked",
        "score MMLU": "completed",
    }
    (arc,) = yard.tick()
    yard.complete(arc)
    (infer,) = yard.tick()
    assert sorted(infer.work.sheets) == ["ARC", "MMLU"]  # type: ignore[union-attr]  # an infer order's work
    yard.complete(infer)
    yard.finish()
    row = yard.evaluation(evaluation)
    assert (row.state, row.sentence) == (EvaluationState.FINISHED, "")
    assert row.average == pytest.approx(100 / 3)
    assert [score.benchmark for score in yard.scores(evaluation) if score.metric == "value"] == ["MMLU", "ARC"]


def test_retry_of_a_failed_score_uses_the_stored_responses(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.complete(yard.infer_order())
    arc, mmlu = yard.tick()
    yard.complete(mmlu)
    yard.fail(arc, FailureKind.HARNESS)
    yard.retry(evaluation)
    assert yard.states(evaluation)["infer"] == "completed"
    (order,) = yard.tick()
    assert (order.work.stage, order.job) == (Stage.SCORE, arc.job)


def test_responses_that_are_gone_are_computed_again_by_themselves(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.complete(yard.infer_order())
    arc, mmlu = yard.tick()
    yard.complete(mmlu)
    yard.fail(arc, FailureKind.RESPONSES, "3 of 8 responses are missing.")
    assert yard.evaluation(evaluation).state is EvaluationState.RUNNING
    (infer,) = yard.tick()
    assert infer.work.stage is Stage.INFER
    assert yard.states(evaluation)["score ARC"] == "blocked"
    yard.complete(infer)
    yard.finish()
    assert yard.evaluation(evaluation).average == pytest.approx(100 / 3)


def test_responses_that_are_gone_time_after_time_are_for_a_person_to_see(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.complete(yard.infer_order())
    arc, mmlu = yard.tick()
    yard.complete(mmlu)
    for _ in range(2):
        yard.fail(arc, FailureKind.RESPONSES, "3 of 8 responses are missing.")
        yard.workers()
        (infer,) = yard.tick()
        yard.complete(infer)
        (arc,) = yard.tick()
    yard.fail(arc, FailureKind.RESPONSES, "3 of 8 responses are missing.")
    found = yard.evaluation(evaluation)
    assert (found.state, found.average) == (EvaluationState.FINISHED, None)
    assert "No score for ARC" in found.sentence
    yard.retry(evaluation)
    (infer,) = yard.tick()
    assert infer.work.stage is Stage.INFER
    yard.complete(infer)
    yard.finish()
    assert yard.evaluation(evaluation).average == pytest.approx(100 / 3)


def test_responses_that_are_gone_while_inference_still_runs_are_asked_for_when_it_ends(yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    yard.beat("engine-1", running={infer.attempt: Progress(benchmarks_done=("ARC",))})
    (arc,) = yard.tick()
    yard.fail(arc, FailureKind.RESPONSES, "3 of 8 responses are missing.")
    assert yard.states(evaluation)["infer"] == "running"
    yard.complete(infer)
    assert (yard.states(evaluation)["infer"], yard.states(evaluation)["score ARC"]) == ("queued", "blocked")
    yard.finish()
    assert yard.evaluation(evaluation).average is not None


def test_retry_of_a_score_that_cannot_use_its_sheet_has_that_benchmark_prepared_again(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.complete(yard.infer_order())
    arc, mmlu = yard.tick()
    yard.complete(mmlu)
    yard.fail(arc, FailureKind.SHEET, "The sheet was made with another lm-eval.")
    yard.retry(evaluation)
    (prepare,) = yard.tick()
    assert (prepare.work.stage, prepare.work.benchmark.name) == (Stage.PREPARE, "ARC")  # type: ignore[union-attr]
    yard.complete(prepare)
    yard.finish()
    assert yard.evaluation(evaluation).average == pytest.approx(100 / 3)


def test_retry_needs_something_that_failed_and_has_ended(yard: Yard) -> None:
    evaluation = yard.submit()
    with pytest.raises(WrongState, match=r"is queued\. Retry it once it has ended"):
        yard.retry(evaluation)
    yard.workers()
    yard.finish()
    with pytest.raises(WrongState, match="no failed job"):
        yard.retry(evaluation)
    other = yard.submit()
    yard.cancel(other)
    with pytest.raises(WrongState, match=r"was cancelled\. Submit the model again"):
        yard.retry(other)


def test_two_controls_that_claim_the_same_job_make_exactly_one_attempt(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.beat("harness-1", slots=100)
    job = yard.job(evaluation, Stage.PREPARE, "ARC")
    assert job.id is not None
    barrier = threading.Barrier(6)
    results: list[bool] = []

    def claim(number: int) -> None:
        barrier.wait()
        with db.session(yard.engine) as session:
            wanted = claims.Claim(job=job.id or 0, attempt=f"attempt-{number}", worker="harness-1", boot="first")
            results.append(claims.claim(session, wanted, identity=None, lease=LEASE, now=yard.now))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 5 + [True]
    assert len(yard.attempts(job)) == 1


def test_two_controls_never_give_a_worker_more_than_it_has_slots(yard: Yard) -> None:
    evaluations = [yard.submit() for _ in range(3)]
    yard.beat("harness-1", slots=2)
    barrier = threading.Barrier(3)

    def dispatch() -> None:
        barrier.wait()
        yard.dispatcher().dispatch(yard.now)

    threads = [threading.Thread(target=dispatch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(yard.sent), yard.held()) == (2, 2)
    assert len(evaluations) == 3


def test_reports_of_two_benchmarks_at_the_same_moment_still_open_the_next_stage(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.workers()
    orders = yard.tick()
    barrier = threading.Barrier(2)

    def complete(index: int) -> None:
        barrier.wait()
        yard.complete(orders[index])

    threads = [threading.Thread(target=complete, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert yard.states(evaluation)["infer"] == "queued"


def test_a_worker_that_was_started_again_since_it_was_chosen_gets_nothing(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.beat("harness-1", boot="second")
    job = yard.job(evaluation, Stage.PREPARE, "ARC")
    with db.session(yard.engine) as session:
        wanted = claims.Claim(job=job.id or 0, attempt="a", worker="harness-1", boot="first")
        assert not claims.claim(session, wanted, identity=None, lease=timedelta(seconds=1), now=yard.now)
