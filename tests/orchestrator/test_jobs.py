"""How jobs follow from each other: what opens the next stage, and what fails with what."""

from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.wire import FailureKind, Progress, Stage, Unanswered
from tests.orchestrator.yard import Yard


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
