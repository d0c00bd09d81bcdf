"""Sample by sample: what the three stages found against what lm-eval found. Pure."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

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
        mine, reference = _by_document(ours[task]), _by_document(theirs[task])
        if list(mine) != list(reference):
            found.faults.append(f"{task}: other documents, or another order")
        for key in mine.keys() & reference.keys():
            where = f"{task} document {key[0]}"
            _compare(found, where, (task, key[0]), mine=mine[key], reference=reference[key], sampled=sampled)
    return found


def _by_document(lines: list[dict[str, Any]]) -> dict[tuple[int, str], dict[str, Any]]:
    return {(line["doc_id"], line["filter"]): line for line in lines}


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
    for (a, b), (c, d) in zip(_answers(mine), _answers(reference), strict=True):
        if isinstance(a, str):
            found.generations += 1
            if a != c:
                found.faults.append(f"{where}: generated {a!r}, reference {c!r}")
            continue
        found.log_likelihoods += 1
        found.largest = max(found.largest, abs(a - c))
        loose += abs(a - c)
        if abs(a - c) > TOLERANCE:
            found.faults.append(f"{where}: log-likelihood {a}, reference {c}")
        if b != d:
            found.faults.append(f"{where}: greedy {b}, reference {d}")
    near = _margin(reference) < TOLERANCE
    if near:
        found.near_ties.append(sample)
    for metric in reference["metrics"]:
        if not near and mine[metric] != pytest.approx(reference[metric], rel=1e-6, abs=loose):
            found.faults.append(f"{where}: {metric} is {mine[metric]}, reference {reference[metric]}")


def _answers(sample: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """(log-likelihood, greedy), (log-likelihood, None) for a rolling one, or (text, None); lm-eval writes text only."""
    rolling = "bits_per_byte" in sample["metrics"]
    for instance in sample["resps"]:
        for answer in instance:
            if isinstance(answer, list | tuple):
                yield float(answer[0]), str(answer[1])
            else:
                yield (float(answer) if rolling else str(answer)), None


def _margin(sample: dict[str, Any]) -> float:
    """How far the reference's best choice is from its second, plain or by length, whichever is closer."""
    scores = [value for value, greedy in _answers(sample) if greedy is not None]
    if len(scores) < 2:
        return float("inf")
    lengths = [len(_continuation(arguments)) or 1 for arguments in _arguments(sample["arguments"])]
    if len(lengths) != len(scores):
        lengths = [1] * len(scores)
    normalised = [score / length for score, length in zip(scores, lengths, strict=True)]
    return min(_gap(scores), _gap(normalised) * max(lengths))


def _arguments(arguments: Any) -> list[Any]:
    return list(arguments.values()) if isinstance(arguments, dict) else list(arguments)


def _continuation(arguments: Any) -> str:
    values = list(arguments.values()) if isinstance(arguments, dict) else list(arguments)
    return str(values[1]) if len(values) > 1 else ""


def _gap(values: list[float]) -> float:
    best, second, *_ = sorted(values, reverse=True)
    return best - second


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
