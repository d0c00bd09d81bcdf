"""The comparison itself can fail: it would be worth nothing otherwise."""

import copy
import random
from typing import Any

from tests.fidelity.compare import compare_samples, same_distribution


def sample(*scores: float, **fields: Any) -> dict[str, Any]:
    best = max(range(len(scores)), key=scores.__getitem__)
    return {
        "doc_id": 0,
        "filter": "none",
        "doc_hash": "d",
        "prompt_hash": "p",
        "target_hash": "t",
        "arguments": [["Question:", " A"]] * len(scores),
        "resps": [[[str(score), "False"]] for score in scores],
        "metrics": ["acc"],
        "acc": float(best == 0),
    } | fields


def faults(ours: dict[str, Any], theirs: dict[str, Any], task: str = "arc") -> list[str]:
    return compare_samples({task: [ours]}, {task: [theirs]}, sampled=frozenset({"sampled"})).faults


def test_equal_samples_have_no_fault() -> None:
    assert faults(sample(-1.0, -2.0), sample(-1.0, -2.0)) == []
    assert faults(sample(-1.00005, -2.0), sample(-1.0, -2.0)) == []


def test_each_kind_of_difference_is_a_fault() -> None:
    reference = sample(-1.0, -2.0)
    assert faults(sample(-1.001, -2.0), reference) == ["arc document 0: log-likelihood -1.001, reference -1.0"]
    assert len(faults(sample(-1.0, -2.0, prompt_hash="other"), reference)) == 1
    assert len(faults(sample(-1.0, -2.0, acc=0.0), reference)) == 1
    greedy = copy.deepcopy(reference)
    greedy["resps"][0][0][1] = "True"
    assert len(faults(greedy, reference)) == 1
    assert len(faults(_text("a"), _text("b"))) == 1


def _text(answer: str) -> dict[str, Any]:
    return sample(-1.0) | {"resps": [[answer]], "metrics": ["acc"], "acc": 0.0}


def test_a_near_tie_of_the_reference_may_fall_either_way_and_is_listed() -> None:
    reference = sample(-1.00001, -1.0)
    comparison = compare_samples({"arc": [sample(-1.0, -1.00001)]}, {"arc": [reference]}, sampled=frozenset())
    assert comparison.faults == []
    assert comparison.near_ties == [("arc", 0)]


def test_sampled_answers_are_compared_in_distribution_only() -> None:
    assert faults(_text("a"), _text("b"), task="sampled") == []
    draw = random.Random(0)
    ours = draw.choices("abcd", [4, 3, 2, 1], k=300)
    assert same_distribution(ours, draw.choices("abcd", [4, 3, 2, 1], k=300))
    assert not same_distribution(ours, draw.choices("abcd", [1, 2, 3, 4], k=300))
