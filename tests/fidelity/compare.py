"""Sample by sample: what the three stages found against what lm-eval found. Pure."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from workers.reference.answers import answers, by_document, margin

TOLERANCE = 1e-4
"""For one log-likelihood, in nats; also the margin under which a choice may fall either way."""


@dataclass
class Comparison:
    log_likelihoods: int = 0
    generations: int = 0
    largest: float = 0.0
    near_ties: list[tuple[str, int]] = field(default_factory=list)
    """Samples (task, doc_id) whose reference margin is under the tolerance: their choice may differ."""
    faults: list[str] = field(default_factory=list)


def compare_samples(
    ours: dict[str, list[dict[str, Any]]], theirs: dict[str, list[dict[str, Any]]], *, sampled: frozenset[str]
) -> Comparison:
    """Every answer and every metric of every sample; of the tasks in `sampled` the prompts only."""
    found = Comparison()
    if ours.keys() != theirs.keys():
        found.faults.append(f"tasks differ: {sorted(ours)} against {sorted(theirs)}")
    for task in sorted(ours.keys() & theirs.keys()):
        mine, reference = by_document(ours[task]), by_document(theirs[task])
        if list(mine) != list(reference):
            found.faults.append(f"{task}: other documents, or another order")
        for key in mine.keys() & reference.keys():
            where = f"{task} document {key[0]}"
            _compare(found, where, (task, key[0]), mine=mine[key], reference=reference[key], sampled=sampled)
    return found


def _compare(
    found: Comparison,
    where: str,
    sample: tuple[str, int],
    *,
    mine: dict[str, Any],
    reference: dict[str, Any],
    sampled: frozenset[str],
) -> None:
    for name in ("doc_hash", "prompt_hash", "target_hash"):
        if mine[name] != reference[name]:
            found.faults.append(f"{where}: {name} differs")
    if sample[0] in sampled:
        return
    loose = 0.0
    for ours, theirs in zip(answers(mine), answers(reference), strict=True):
        if ours.logprob is None or theirs.logprob is None:
            found.generations += 1
            if ours != theirs:
                found.faults.append(f"{where}: generated {ours.text!r}, reference {theirs.text!r}")
            continue
        found.log_likelihoods += 1
        difference = abs(ours.logprob - theirs.logprob)
        found.largest = max(found.largest, difference)
        loose += difference
        if difference > TOLERANCE:
            found.faults.append(f"{where}: log-likelihood {ours.logprob}, reference {theirs.logprob}")
        if ours.greedy != theirs.greedy:
            found.faults.append(f"{where}: greedy {ours.greedy}, reference {theirs.greedy}")
    near = margin(reference) < TOLERANCE
    if near:
        found.near_ties.append(sample)
    for metric in reference["metrics"]:
        if not near and mine[metric] != pytest.approx(reference[metric], rel=1e-6, abs=loose):
            found.faults.append(f"{where}: {metric} is {mine[metric]}, reference {reference[metric]}")


def same_distribution(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """A two-sample chi-squared test over the answers that occur often enough, at about four standard deviations."""
    first, second = Counter(ours), Counter(theirs)
    cells = [(first[text], second[text]) for text in first.keys() | second.keys() if first[text] + second[text] >= 10]
    rest = (len(ours) - sum(a for a, _ in cells), len(theirs) - sum(b for _, b in cells))
    cells = [*cells, rest] if sum(rest) >= 10 else cells
    share = len(ours) / (len(ours) + len(theirs))
    statistic = sum(
        (a - share * (a + b)) ** 2 / (share * (a + b)) + (b - (1 - share) * (a + b)) ** 2 / ((1 - share) * (a + b))
        for a, b in cells
    )
    freedom = len(cells) - 1
    assert freedom > 0, "there is nothing to compare: every answer is rare, or all are the same"
    return statistic < freedom + 4 * math.sqrt(2 * freedom)


def texts(samples: list[dict[str, Any]]) -> list[str]:
    """Every repeat of every generation."""
    return [str(answer) for sample in samples for instance in sample["resps"] for answer in instance]
