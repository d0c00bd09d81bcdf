"""The verdict on two runs: what it overlooks, and each thing it must not."""

from typing import Any

import pytest

from orchestrator.wire import Precision
from workers.reference.answers import Sample
from workers.reference.parity import BenchmarkParity, ChangedChoice, compare

EXACT, COARSE = Precision.FLOAT32, Precision.BFLOAT16


def choice(document: int, *scores: float, continuations: tuple[str, ...] = (), right: int = 0, **more: Any) -> Sample:
    """A multiple-choice document: the first choice is right unless said otherwise."""
    words = continuations or tuple(f" {chr(65 + number)}" for number in range(len(scores)))
    best = max(range(len(scores)), key=scores.__getitem__)
    return {
        "doc_id": document,
        "filter": "none",
        "doc_hash": f"d{document}",
        "prompt_hash": "p",
        "target_hash": "t",
        "arguments": {f"gen_args_{n}": {"arg_0": "Question:", "arg_1": word} for n, word in enumerate(words)},
        "resps": [[[str(score), "False"]] for score in scores],
        "metrics": ["acc"],
        "acc": float(best == right),
        **more,
    }


def text(document: int, answer: str, **more: Any) -> Sample:
    score = {"metrics": ["exact_match"], "exact_match": float(answer == "7")}
    return choice(document, 0.0) | {"resps": [[answer]], "acc": None} | score | more


def compared(ours: list[Sample], theirs: list[Sample], precision: Precision = EXACT, **more: Any) -> BenchmarkParity:
    return compare("B", {"task": ours}, {"task": theirs}, precision=precision, **more)


def test_equal_runs_are_in_parity_at_every_precision() -> None:
    runs = [choice(number, -1.0, -2.0 - number) for number in range(4)]
    for precision in (EXACT, COARSE):
        found = compared(runs, runs, precision)
        assert found.in_parity
        assert (found.documents, found.log_likelihoods, found.choices, found.changed) == (4, 8, 4, [])
        assert found.metrics[0].mcnemar_p == 1.0


def test_in_float32_a_log_likelihood_may_be_off_by_rounding_and_no_more() -> None:
    reference = [choice(0, -1.0, -2.0)]
    assert compared([choice(0, -1.0009, -2.0)], reference).in_parity
    found = compared([choice(0, -1.0011, -2.0)], reference)
    assert found.reasons == ["1 of 2 log-likelihoods are 0.001 or more apart (the largest 0.0011)"]
    assert found.mean_difference == pytest.approx(0.00055)
    assert compared([choice(0, -1.0011, -2.0)], reference, COARSE).in_parity


def test_a_log_likelihood_that_is_no_number_is_never_in_parity_in_float32() -> None:
    assert not compared([choice(0, float("nan"), -2.0)], [choice(0, -1.0, -2.0)]).in_parity


def test_in_float32_a_choice_may_differ_on_a_tie_only() -> None:
    tied = compared([choice(0, -1.0, -1.00002)], [choice(0, -1.00005, -1.0)])
    assert tied.in_parity
    assert tied.changed == [ChangedChoice("task", 0, "plain", 1, 0, pytest.approx(0.00005))]
    decided = compared([choice(0, -1.0, -1.0002)], [choice(0, -1.0003, -1.0)])
    assert decided.reasons == ["1 choices differ where the reference was not tied (margin 0.0001 or more)"]


def test_a_choice_by_length_counts_where_acc_norm_does_and_its_delimiter_does_not() -> None:
    words = (" ab", " abcd")
    normalised = {"continuations": words, "metrics": ["acc", "acc_norm"], "acc_norm": 1.0}
    # By length -2.2/2 and -4.0/4: the second; the other run -1.9/2 and -4.0/4: the first. Plain, both say the first.
    found = compared([choice(0, -1.9, -4.0, **normalised)], [choice(0, -2.2, -4.0, **normalised)], COARSE)
    assert found.changed == [ChangedChoice("task", 0, "by length", 1, 0, pytest.approx(0.4))]


def test_changed_choices_are_listed_by_margin() -> None:
    reference = [choice(0, -1.0, -1.1), choice(1, -1.0, -3.0), choice(2, -1.0, -1.5)]
    found = compared([choice(number, -5.0, -1.0) for number in range(3)], reference)
    assert [change.document for change in found.changed] == [1, 2, 0]


def test_in_bfloat16_scores_may_differ_by_one_paired_standard_error() -> None:
    reference = [choice(number, -1.0, -2.0) for number in range(50)]

    def flipped(count: int, back: int = 0) -> BenchmarkParity:
        theirs = [choice(number, -2.0, -1.0) if number >= 50 - back else reference[number] for number in range(50)]
        ours = [choice(number, -2.0, -1.0) if number < count else reference[number] for number in range(50)]
        return compared(ours, theirs, COARSE)

    assert flipped(1).in_parity
    assert flipped(4, 3).in_parity
    lost = flipped(6)
    (reason,) = lost.reasons
    assert reason.startswith("acc (none) is -0.1200 apart, more than its paired standard error of 0.046")
    (pair,) = lost.metrics
    assert (pair.only_ours, pair.only_reference) == (0, 6)
    assert pair.mcnemar_p == pytest.approx(2 / 64)


def test_only_the_judged_metric_decides() -> None:
    extra = {"metrics": ["acc", "odd"]}
    ours = [choice(number, -1.0, -2.0, odd=1.0, **extra) for number in range(9)]
    theirs = [choice(number, -1.0, -2.0, odd=0.0, **extra) for number in range(9)]
    assert not compared(ours, theirs, COARSE).in_parity
    assert compared(ours, theirs, COARSE, judged={("acc", "none")}).in_parity


def test_in_float32_greedy_texts_are_equal_but_for_one_in_fifty() -> None:
    reference = [text(number, "7") for number in range(50)]
    assert compared([text(0, "7 "), *reference[1:]], reference).in_parity
    found = compared([text(0, "7 "), text(1, "seven"), *reference[2:]], reference)
    assert "2 of 50 greedy texts differ" in found.reasons
    assert (found.texts, found.texts_equal) == (50, 48)


def test_drawn_texts_are_judged_by_their_score_alone() -> None:
    reference = [text(number, "7") for number in range(9)]
    other = [text(number, "7", resps=[["another"]]) for number in range(9)]
    found = compared(other, reference, sampled={"task"})
    assert found.in_parity
    assert (found.texts, found.sampled) == (0, ["task"])
    assert not compared([text(number, "8") for number in range(9)], reference, sampled={"task"}).in_parity


@pytest.mark.parametrize("precision", [EXACT, COARSE])
def test_another_prompt_or_another_document_is_a_fault_at_every_precision(precision: Precision) -> None:
    reference = [choice(0, -1.0, -2.0), choice(1, -1.0, -2.0)]
    other = compared([reference[0] | {"prompt_hash": "q"}, reference[1]], reference, precision)
    assert other.reasons == ["task: 1 samples differ in document, prompt or target"]
    missing = compared(reference[:1], reference, precision)
    assert missing.reasons == ["task: 1 samples are in one of the two runs only"]
    assert "no document is in both runs" in compared([], reference, precision).reasons


def test_documents_with_two_filters_are_compared_once_and_scored_twice() -> None:
    lines = [text(0, "7"), text(0, "7", filter="flexible")]
    found = compared(lines, lines)
    assert (found.documents, found.texts, len(found.metrics)) == (1, 1, 2)


def test_lists_of_verdicts_and_perplexities_have_a_value_for_each_document() -> None:
    rolling = choice(0, 0.0) | {"resps": [["-12.0"]], "metrics": ["bits_per_byte", "inst_acc"]}
    rolling |= {"bits_per_byte": [-12.0, 6], "inst_acc": [True, False, True, True]}
    found = compared([rolling], [rolling])
    assert {pair.metric: pair.value for pair in found.metrics} == {"bits_per_byte": -2.0, "inst_acc": 0.75}
    assert (found.log_likelihoods, found.choices) == (1, 0)
