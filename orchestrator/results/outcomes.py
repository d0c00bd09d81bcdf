"""What each document came to, kept beside a benchmark's value: for the standard error of two models' difference.

Numbers alone, never a text of a document or an answer, so it is kept of confidential data sets too. What does not add
up to the benchmark's value is not kept: such a benchmark is compared by its own standard error.
"""

import base64
import binascii
import math
import struct
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.suites import SuiteBenchmark
from orchestrator.wire import Outcomes, ScoreDone


class Stratum(NamedTuple):
    """One task's documents and their part in a benchmark's value: the mean of their numbers, times `weight`."""

    documents: str
    """Digest: equal where the same documents were answered."""
    size: int
    """How many documents."""
    weight: float
    """In points of the benchmark's value, 0 to 100."""
    bits: int | None = None
    """Of each document whether it is 1, where all are 0 or 1."""
    numbers: "array[float] | tuple[()]" = ()
    """Otherwise the number of each."""

    def each(self) -> Sequence[float]:
        """The number of each document."""
        if self.bits is None:
            return self.numbers
        return [float(self.bits >> place & 1) for place in range(self.size)]


class Spread(NamedTuple):
    """Of a benchmark's difference between two models."""

    variance: float
    """Of the difference of the two values, in squared points."""
    documents: int


def as_record(benchmark: SuiteBenchmark, done: ScoreDone) -> list[dict[str, Any]]:
    """The strata of a benchmark as JSON keeps them; empty where a counted number is no mean over documents.

    The value is the mean over the suite's parts, each scaled so that its baseline is 0 and 1 is 100; a group is the
    weighted mean of its tasks. So it is a weighted sum over tasks, and where a task has several parts (IFEval's two
    accuracies) each document has one number: its weighted sum over them.
    """
    each = {(one.task, one.metric, one.filter): one for one in done.outcomes}
    groups = {(one.group, one.metric, one.filter): one.weights for one in done.weightings}
    counted = [(part, score) for part in benchmark.parts for score in part.select(done.scores)]
    by_task: defaultdict[str, list[tuple[float, Outcomes]]] = defaultdict(list)
    for part, score in counted:
        key = score.task, score.metric, score.filter
        scale = 100.0 / (1.0 - part.baseline if benchmark.normalised else 1.0) / len(counted)
        weights = {score.task: 1.0} if key in each else groups.get(key, {})
        found = [(scale * weight, each.get((task, *key[1:]))) for task, weight in weights.items()]
        # What is no number would tie the whole board, and a huge one has no square.
        if not found or not all(0.0 <= weight <= 1.0 for weight in weights.values()):
            return []
        for weight, one in found:
            if one is None:
                return []
            by_task[one.task].append((weight, one))
    try:
        return [_record(by_task[task]) for task in sorted(by_task)]
    except (ValueError, OverflowError, struct.error, binascii.Error):
        return []


def read_strata(record: Sequence[Mapping[str, Any]]) -> tuple[Stratum, ...]:
    """The strata of what `as_record` made."""
    return tuple(
        Stratum(one["documents"], one["count"], one["weight"], bits=_bits(one["bits"], one["count"]))
        if "bits" in one
        else Stratum(one["documents"], one["count"], one["weight"], numbers=_numbers(one["numbers"], one["count"]))
        for one in record
    )


def spread_of_difference(ours: Sequence[Stratum], theirs: Sequence[Stratum]) -> Spread | None:
    """Variance of the difference of two models' values, document by document; None where the documents differ.

    Of each task the variance of the mean of the differences d over its n documents, sum((d - mean)²) / (n - 1) / n
    (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640, section 4.2); tasks are independent, so theirs add up,
    each with its squared weight (stratified sampling: Cochran 1977, "Sampling Techniques", section 5.3). That a value
    below its baseline counts as 0 is left out of it, as in the standard error of a single row.
    """
    if not ours or len(ours) != len(theirs):
        return None
    variance, documents = 0.0, 0
    for a, b in zip(ours, theirs, strict=True):
        if a.documents != b.documents or a.size != b.size or a.weight != b.weight or a.size < 2:
            return None
        if a.bits is not None and b.bits is not None:
            total: float = a.bits.bit_count() - b.bits.bit_count()
            squares: float = (a.bits ^ b.bits).bit_count()
        else:
            differences = [x - y for x, y in zip(a.each(), b.each(), strict=True)]
            total, squares = math.fsum(differences), math.fsum(one * one for one in differences)
        variance += a.weight**2 * max(0.0, squares - total * total / a.size) / (a.size - 1) / a.size
        documents += a.size
    return Spread(variance, documents)


def _record(counted: Sequence[tuple[float, Outcomes]]) -> dict[str, Any]:
    first = counted[0][1]
    own: dict[str, Any] = {"documents": first.documents, "count": first.count}
    if any((one.documents, one.count) != (first.documents, first.count) for _, one in counted):
        raise ValueError("numbers of one task are of different documents")
    if len(counted) == 1 and first.is_right_or_wrong:
        if _bits(first.values, first.count) >> first.count:
            raise ValueError("more documents are right than there are")
        return own | {"weight": counted[0][0], "bits": first.values}
    numbers = [(weight, _each(one)) for weight, one in counted]
    if len(numbers) == 1:
        return own | {"weight": counted[0][0], "numbers": first.values}
    # As whole points, so that the parts of two models whose numbers are kept otherwise still weigh alike.
    sums = [math.fsum(weight * values[place] for weight, values in numbers) for place in range(first.count)]
    return own | {"weight": 1.0, "numbers": base64.b64encode(struct.pack(f"<{len(sums)}f", *sums)).decode()}


def _each(one: Outcomes) -> Sequence[float]:
    if one.is_right_or_wrong:
        return Stratum("", one.count, 1.0, bits=_bits(one.values, one.count)).each()
    return _numbers(one.values, one.count)


def _bits(text: str, count: int) -> int:
    packed = binascii.a2b_base64(text, strict_mode=True)
    if len(packed) != (count + 7) // 8:
        raise ValueError(f"{len(packed)} bytes are not the bits of {count} documents")
    return int.from_bytes(packed, "little")


def _numbers(text: str, count: int) -> "array[float]":
    numbers = array("f", struct.unpack(f"<{count}f", base64.b64decode(text, validate=True)))
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a document came to what is no number")
    return numbers
