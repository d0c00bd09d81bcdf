"""Which answers are refused, and which merely weak ones are not."""

import pytest

from orchestrator.wire import FailureKind, ScoreValue
from workers.harness import checks
from workers.harness.checks import GeneratedAnswer, ScoredAnswer
from workers.stage import StageFailure


def scored(document: int, choice: int, logprob: float, *, tokens: int = 1) -> ScoredAnswer:
    return ScoredAnswer(("task", document), f"{document}-{choice}", tokens, logprob)


def generated(document: int, text: str, *, tokens: tuple[int, ...] = (7,), ended: bool = True) -> GeneratedAnswer:
    return GeneratedAnswer(("task", document), str(document), text, tokens, ended)


def refused(scored_answers: list[ScoredAnswer], generated_answers: list[GeneratedAnswer]) -> StageFailure:
    with pytest.raises(StageFailure) as caught:
        checks.refuse_broken(scored_answers, generated_answers)
    assert caught.value.kind is FailureKind.INVALID_OUTPUT
    return caught.value


def test_choices_that_are_all_equally_likely_are_refused() -> None:
    answers = [scored(document, choice, -1.0 - document) for document in range(4) for choice in range(4)]
    assert "identical log-likelihoods" in refused(answers, []).sentence


def test_a_model_with_flat_logits_is_refused_although_longer_choices_differ() -> None:
    answers = [
        scored(document, choice, -6.5 * (choice + 1), tokens=choice + 1) for document in range(4) for choice in range(3)
    ]
    assert "whatever was asked" in refused(answers, []).sentence


def test_empty_generations_are_refused() -> None:
    assert "empty" in refused([], [generated(document, " \n") for document in range(4)]).sentence


def test_a_generation_that_repeats_for_every_prompt_and_never_ends_is_refused() -> None:
    answers = [generated(document, "!!!", tokens=(0, 0, 0), ended=False) for document in range(4)]
    assert "never ends" in refused([], answers).sentence


def test_a_weak_model_that_always_prefers_the_same_letter_is_scored() -> None:
    answers = [scored(document, choice, -1.0 - choice - document / 100) for document in range(9) for choice in range(4)]
    checks.refuse_broken(answers, [])


def test_a_weak_model_that_always_says_no_is_scored() -> None:
    checks.refuse_broken([], [generated(document, "no") for document in range(9)])


def test_three_documents_are_too_few_to_judge() -> None:
    checks.refuse_broken(
        [scored(document, choice, -1.0) for document in range(3) for choice in range(4)],
        [generated(document, "") for document in range(3)],
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(value: float) -> None:
    score = ScoreValue(task="t", metric="acc", filter="none", value=value, stderr=None, samples=4)
    with pytest.raises(StageFailure, match="which is no score"):
        checks.refuse_not_finite([score])
