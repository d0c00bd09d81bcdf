"""Refuses answers that no working model gives, so that a broken one never becomes a score.

Pure. A published board ranked a dozen such models. The rules must not catch a weak model, so they ask for sameness
over at least four documents that differ, and never judge which choice was preferred.

    flat         every answer gives its tokens the same log-probability, whatever was asked
    tied         every document's different choices are exactly equally likely
    empty        every generation is empty once stop strings are cut
    looping      every generation is the same and never ended by itself
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.wire import FailureKind, ScoreValue
from workers.stage import StageFailure

FEWEST_DOCUMENTS = 4


@dataclass(frozen=True)
class ScoredAnswer:
    document: tuple[str, int]
    request: str
    tokens: int
    logprob: float


@dataclass(frozen=True)
class GeneratedAnswer:
    document: tuple[str, int]
    request: str
    text: str
    """After stop strings are cut."""
    tokens: tuple[int, ...]
    ended: bool
    """Whether it ended by itself, not by the limit of new tokens."""


def refuse_broken(scored: Iterable[ScoredAnswer], generated: Iterable[GeneratedAnswer]) -> None:
    """Look over all answers of a benchmark.

    Raises:
        StageFailure: INVALID_OUTPUT with the rule that caught them.
    """
    _refuse_scored(list(scored))
    _refuse_generated(list(generated))


def refuse_not_finite(scores: Iterable[ScoreValue]) -> None:
    """Raise for a score that is no finite number."""
    for score in scores:
        if not math.isfinite(score.value):
            raise _failure(f"{score.metric} of task {score.task} is {score.value}, which is no score")


def _refuse_scored(answers: list[ScoredAnswer]) -> None:
    asked = {answer.request: answer for answer in answers if answer.tokens}
    documents = {answer.document for answer in asked.values()}
    if len(documents) < FEWEST_DOCUMENTS or len(asked) < FEWEST_DOCUMENTS:
        return
    per_token = [answer.logprob / answer.tokens for answer in asked.values()]
    if max(per_token) - min(per_token) <= 1e-9 * max(1.0, abs(max(per_token))):
        raise _failure("every answer has the same log-likelihood for each token, whatever was asked")
    choices: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for answer in answers:
        choices[answer.document][answer.request] = answer.logprob
    several = [list(values.values()) for values in choices.values() if len(values) > 1]
    if len(several) >= FEWEST_DOCUMENTS and all(len(set(values)) == 1 for values in several):
        raise _failure("all choices of every document have identical log-likelihoods")


def _refuse_generated(answers: list[GeneratedAnswer]) -> None:
    documents = {answer.document for answer in answers}
    different = {answer.request for answer in answers}
    if len(documents) < FEWEST_DOCUMENTS or len(different) < FEWEST_DOCUMENTS:
        return
    if not any(answer.text.strip() for answer in answers):
        raise _failure("every generated answer is empty")
    if len({answer.tokens for answer in answers}) == 1 and not any(answer.ended for answer in answers):
        raise _failure("every generated answer is the same and never ends")


def _failure(what: str) -> StageFailure:
    return StageFailure(
        FailureKind.INVALID_OUTPUT,
        f"The model's output is not valid: {what}. Check the weights, the precision and the tokenizer, then submit "
        f"again.",
    )
