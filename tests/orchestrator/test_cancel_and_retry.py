"""What a person may do to an evaluation: cancel it in every state, and retry what failed."""

import pytest

from orchestrator.errors import NotFound, WrongState
from orchestrator.lifecycle import EvaluationState
from orchestrator.wire import FailureKind, Progress, Stage
from tests.orchestrator.yard import Yard


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
