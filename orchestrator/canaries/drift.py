"""How far the answers of one engine build are from the stored ones, and whether that is too far. Pure.

Compared are the same requests, paired: log-likelihoods by their difference, multiple choice by which answer wins,
generated text by equality. Choices and texts are counted by document, as lm-eval scores them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.errors import EvalyardError

SCORED, GENERATED = "scored", "generated"


class Answer(NamedTuple):
    """A log-likelihood with whether its tokens are the engine's first choice, or a generated text."""

    logprob: float | None = None
    greedy: bool = False
    text: str | None = None


class Question(NamedTuple):
    """A document of the sample with the hashes of its requests."""

    task: str
    document: int
    choices: tuple[tuple[str, ...], ...]
    """For each instance the requests that answer it, several where a long text was cut into windows."""
    kind: str = SCORED


class AnswersMissing(EvalyardError):
    """Some requests of the canary have no answer that can be compared."""


@dataclass(frozen=True)
class Drift:
    scored: int = 0
    """Log-likelihoods that were compared."""
    mean: float = 0.0
    """Of their absolute differences, in nats."""
    largest: float = 0.0
    choices: int = 0
    """Documents whose answer is a choice, or whether a text is the engine's own."""
    changed_choices: int = 0
    texts: int = 0
    """Documents whose answer is generated."""
    changed_texts: int = 0
    per_second: float | None = None
    """Requests answered in a second of engine time; None where nothing was measured."""

    @property
    def choices_share(self) -> float:
        return self.changed_choices / self.choices if self.choices else 0.0

    @property
    def texts_share(self) -> float:
        return self.changed_texts / self.texts if self.texts else 0.0


@dataclass(frozen=True)
class Bounds:
    """What a build may drift before it is kept out: each is the largest value that still passes."""

    mean: float = 0.2
    choices: float = 0.2
    texts: float = 0.6


def compare(
    questions: Sequence[Question],
    before: Mapping[str, Answer],
    after: Mapping[str, Answer],
    *,
    per_second: float | None = None,
) -> Drift:
    """The drift of `after` against `before`.

    Raises:
        AnswersMissing: a request has no answer in one of them, one of another kind, or one that is no number.
    """
    requests = {one for question in questions if question.kind == SCORED for one in _requests(question)}
    differences = [abs(_logprob(after, one) - _logprob(before, one)) for one in sorted(requests)]
    choosing = [question for question in questions if question.kind == SCORED]
    writing = [question for question in questions if question.kind == GENERATED]
    return Drift(
        scored=len(differences),
        mean=math.fsum(differences) / len(differences) if differences else 0.0,
        largest=max(differences, default=0.0),
        choices=len(choosing),
        changed_choices=sum(_choice(question, before) != _choice(question, after) for question in choosing),
        texts=len(writing),
        changed_texts=sum(
            any(_text(before, one) != _text(after, one) for one in _requests(question)) for question in writing
        ),
        per_second=per_second,
    )


def breaches(drift: Drift, bounds: Bounds) -> list[str]:
    """Each bound that is passed, in words; empty for a build that may work."""
    found = []
    if drift.mean > bounds.mean:
        found.append(f"log-likelihoods differ by {drift.mean:.3g} on average, and may by {bounds.mean:g}")
    if drift.choices_share > bounds.choices:
        changed = f"{drift.changed_choices} of {drift.choices} choices changed"
        found.append(f"{changed} ({drift.choices_share:.0%}), and {bounds.choices:.0%} may")
    if drift.texts_share > bounds.texts:
        changed = f"{drift.changed_texts} of {drift.texts} generated texts changed"
        found.append(f"{changed} ({drift.texts_share:.0%}), and {bounds.texts:.0%} may")
    return found


def described(drift: Drift) -> str:
    """`mean |Δ log-likelihood| 0.013, largest 0.1; 1 of 40 choices and 3 of 12 texts changed; 210 requests/s`."""
    parts = []
    if drift.scored:
        parts.append(f"mean |Δ log-likelihood| {drift.mean:.2g}, largest {drift.largest:.2g}")
    counted = [
        f"{changed} of {many} {noun}"
        for changed, many, noun in (
            (drift.changed_choices, drift.choices, "choices"),
            (drift.changed_texts, drift.texts, "texts"),
        )
        if many
    ]
    if counted:
        parts.append(f"{' and '.join(counted)} changed")
    if drift.per_second is not None:
        parts.append(f"{drift.per_second:.3g} requests/s")
    return "; ".join(parts)


def _requests(question: Question) -> Iterable[str]:
    return (request for choice in question.choices for request in choice)


def _choice(question: Question, answers: Mapping[str, Answer]) -> object:
    """Which answer has the largest log-likelihood, the first of equal ones; of a single one whether it is greedy."""
    if len(question.choices) == 1:
        return tuple(answers[one].greedy for one in question.choices[0])
    sums = [math.fsum(_logprob(answers, one) for one in choice) for choice in question.choices]
    return sums.index(max(sums))


def _logprob(answers: Mapping[str, Answer], request: str) -> float:
    answer = answers.get(request)
    if answer is None or answer.logprob is None or not math.isfinite(answer.logprob):
        raise AnswersMissing(f"Request {request} of the canary has no log-likelihood that can be compared.")
    return answer.logprob


def _text(answers: Mapping[str, Answer], request: str) -> str:
    answer = answers.get(request)
    if answer is None or answer.text is None:
        raise AnswersMissing(f"Request {request} of the canary has no text that can be compared.")
    return answer.text
