import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.canaries.drift import (
    GENERATED,
    Answer,
    AnswersMissing,
    Bounds,
    Drift,
    Question,
    breaches,
    compare,
    described,
)

logprobs = st.floats(-1e3, 0, allow_nan=False)
letters = st.lists(logprobs, min_size=2, max_size=5)
samples = st.lists(letters, min_size=1, max_size=8)


def choices(*sums: float, document: int = 0) -> tuple[Question, dict[str, Answer]]:
    answers = {f"d{document}c{number}": Answer(value) for number, value in enumerate(sums)}
    return Question("task", document, tuple((one,) for one in answers)), answers


def of(sample: list[list[float]]) -> tuple[list[Question], dict[str, Answer]]:
    made = [choices(*sums, document=number) for number, sums in enumerate(sample)]
    return [question for question, _ in made], {one: answer for _, found in made for one, answer in found.items()}


def moved(answers: dict[str, Answer], by: Callable[[str, float], float]) -> dict[str, Answer]:
    return {one: answer._replace(logprob=by(one, answer.logprob or 0.0)) for one, answer in answers.items()}


@given(samples)
def test_equal_answers_have_no_drift(sample: list[list[float]]) -> None:
    questions, answers = of(sample)
    found = compare(questions, answers, dict(answers))
    assert (found.mean, found.largest, found.changed_choices) == (0.0, 0.0, 0)
    assert found.scored == sum(map(len, sample))
    assert breaches(found, Bounds(0.0, 0.0, 0.0)) == []


@given(samples, st.floats(-50, 50))
def test_what_moves_all_log_likelihoods_alike_is_its_mean_and_its_largest(sample: list[list[float]], by: float) -> None:
    questions, answers = of(sample)
    found = compare(questions, answers, moved(answers, lambda _, value: value + by))
    assert math.isclose(found.mean, abs(by), abs_tol=1e-9)
    assert math.isclose(found.largest, abs(by), abs_tol=1e-9)


@given(samples, samples)
def test_drift_is_the_same_in_both_directions_and_in_any_order(
    before: list[list[float]], other: list[list[float]]
) -> None:
    sample = [sums[: len(after)] for sums, after in zip(before, other, strict=False)]
    after = [sums[: len(kept)] for sums, kept in zip(other, sample, strict=False)]
    questions, first = of(sample)
    _, second = of(after)
    there, back = compare(questions, first, second), compare(questions, second, first)
    assert there == back == compare(questions[::-1], first, second)
    assert there.mean <= there.largest or math.isclose(there.mean, there.largest)
    assert 0 <= there.changed_choices <= there.choices


def test_a_choice_has_changed_where_another_answer_wins() -> None:
    questions, answers = of([[-1.0, -2.0], [-3.0, -1.0]])
    swapped = answers | {"d0c1": Answer(-0.5)}
    found = compare(questions, answers, swapped)
    assert (found.choices, found.changed_choices, found.largest) == (2, 1, 1.5)
    # Nearer to each other, and still the same one.
    assert compare(questions, answers, answers | {"d0c1": Answer(-1.5)}).changed_choices == 0


def test_windows_of_one_long_text_count_together_and_a_single_text_by_whether_it_is_greedy() -> None:
    question = Question("perplexity", 0, (("w1", "w2"),))
    before = {"w1": Answer(-1.0, greedy=True), "w2": Answer(-2.0)}
    assert compare([question], before, before | {"w1": Answer(-1.0)}).changed_choices == 1
    assert compare([question], before, before | {"w1": Answer(-1.5, greedy=True)}).changed_choices == 0


def test_texts_are_counted_by_document() -> None:
    questions = [Question("sums", 0, (("a",), ("b",)), GENERATED), Question("sums", 1, (("c",),), GENERATED)]
    before = {one: Answer(text="4") for one in "abc"}
    found = compare(questions, before, before | {"a": Answer(text="5"), "b": Answer(text="6")})
    assert (found.scored, found.texts, found.changed_texts, found.texts_share) == (0, 2, 1, 0.5)


@pytest.mark.parametrize("answer", [None, Answer(text="4"), Answer(float("nan")), Answer(-math.inf)])
def test_what_is_missing_or_no_number_is_no_drift_but_an_error(answer: Answer | None) -> None:
    question, before = choices(-1.0, -2.0)
    after = {one: found for one, found in before.items() if one != "d0c0"} | ({"d0c0": answer} if answer else {})
    with pytest.raises(AnswersMissing):
        compare([question], before, after)


def test_only_what_is_beyond_its_bound_is_a_breach() -> None:
    drift = Drift(scored=4, mean=0.2, largest=1.0, choices=10, changed_choices=2, texts=10, changed_texts=6)
    assert breaches(drift, Bounds(mean=0.2, choices=0.2, texts=0.6)) == []
    assert breaches(drift, Bounds(mean=0.19, choices=0.1, texts=0.5)) == [
        "log-likelihoods differ by 0.2 on average, and may by 0.19",
        "2 of 10 choices changed (20%), and 10% may",
        "6 of 10 generated texts changed (60%), and 50% may",
    ]
    assert described(drift) == ("mean |Δ log-likelihood| 0.2, largest 1; 2 of 10 choices and 6 of 10 texts changed")
