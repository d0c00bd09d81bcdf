"""What a line of an lm-eval samples file says: answers, the choice they make, metrics."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workers.sheets import read_lines

Sample = dict[str, Any]

PERPLEXITIES = frozenset({"word_perplexity", "byte_perplexity", "bits_per_byte"})
"""Metrics of rolling tasks: a sample holds (log-likelihood, units) for each."""


class Answer(NamedTuple):
    """A log-likelihood with or without its greedy flag (a rolling one has none), or a text."""

    logprob: float | None = None
    greedy: bool | None = None
    text: str | None = None


def read_samples(results: Path) -> dict[str, list[Sample]]:
    """The samples of a results folder, by task as its file is named."""
    return {
        path.name.removeprefix("samples_").removesuffix(".jsonl.zst"): [json.loads(line) for line in read_lines(path)]
        for path in sorted(results.glob("samples_*.jsonl.zst"))
    }


def by_document(lines: Sequence[Sample]) -> dict[tuple[int, str], Sample]:
    """Samples by document and filter: a document has a line for each filter."""
    return {(line["doc_id"], line["filter"]): line for line in lines}


def answers(sample: Sample) -> list[Answer]:
    """Every repeat of every instance; lm-eval writes log-likelihoods as text."""
    rolling = is_rolling(sample)
    return [_answer(given, rolling=rolling) for instance in sample["resps"] for given in instance]


def is_rolling(sample: Sample) -> bool:
    return not PERPLEXITIES.isdisjoint(sample["metrics"])


def is_choice(sample: Sample) -> bool:
    """Whether the document is decided between several log-likelihoods."""
    found = answers(sample)
    return len(found) > 1 and all(answer.greedy is not None for answer in found)


def values(sample: Sample) -> dict[str, list[float]]:
    """By how a choice is made, the value of each choice in nats: plain, and by length where `acc_norm` counts.

    Lengths are scaled to the longest choice, so that a margin by length is comparable to one of log-likelihoods.
    """
    plain = [answer.logprob for answer in answers(sample) if answer.logprob is not None]
    if "acc_mutual_info" in sample["metrics"]:
        plain = plain[: len(plain) // 2]  # the second half are the choices without their question
    found = {"plain": plain}
    if "acc_norm" in sample["metrics"]:
        # lm-eval counts the characters of a choice without the delimiter before it.
        lengths = [len(_continuation(given).lstrip()) or 1 for given in _unpacked(sample["arguments"])][: len(plain)]
        longest = max(lengths)
        found["by length"] = [value / length * longest for value, length in zip(plain, lengths, strict=True)]
    return found


def margin(sample: Sample) -> float:
    """How far the best choice is from the second, plain or by length, whichever is closer; infinite without one."""
    if not is_choice(sample):
        return math.inf
    return min(_gap(found) for found in values(sample).values())


def metric_value(sample: Sample, metric: str) -> float | None:
    """The number that a document adds to a metric's mean; None where a metric is no mean of numbers."""
    value = sample.get(metric)
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, list) and value and all(isinstance(item, bool) for item in value):
        return sum(value) / len(value)
    if metric in PERPLEXITIES and isinstance(value, list) and len(value) == 2 and value[1]:
        return float(value[0]) / float(value[1])
    return None


def _answer(given: Any, *, rolling: bool) -> Answer:
    if isinstance(given, list | tuple):
        return Answer(float(given[0]), str(given[1]) == "True")
    return Answer(float(given)) if rolling else Answer(text=str(given))


def _unpacked(arguments: Any) -> Iterator[list[Any]]:
    """lm-eval's samples files name arguments (`gen_args_0`: {`arg_0`: …}); its records in memory list them."""
    for one in arguments.values() if isinstance(arguments, dict) else arguments:
        yield list(one.values()) if isinstance(one, dict) else list(one)


def _continuation(arguments: list[Any]) -> str:
    return str(arguments[1]) if len(arguments) > 1 else ""


def _gap(found: list[float]) -> float:
    best, second, *_ = sorted(found, reverse=True)
    return best - second
