"""What each document came to in every score that is a mean over documents, small enough for a message.

lm-eval's own numbers are the judge: values that do not add up to the score that it gives are left out.
"""

import base64
import hashlib
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.wire import Outcomes, Weighting

MOST_BYTES = 1 << 20
"""Of all values in one message; MMLU-Pro's 12,032 rights and wrongs are 2 KB. What goes beyond is left out."""
NEARLY = 1e-6
"""How far a mean over documents may lie from lm-eval's score: it adds up in another order, and may have rounded."""


def outcomes(record: Mapping[str, Any], samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[Outcomes, ...]:
    """The values behind each score of each task, of lm-eval's results and samples."""
    found: list[Outcomes] = []
    size = 0
    for task, lines in samples.items():
        table = record["results"].get(task, {})
        for filter_name in dict.fromkeys(str(line.get("filter")) for line in lines):
            own = sorted(
                (line for line in lines if str(line.get("filter")) == filter_name),
                key=lambda line: str(line.get("doc_hash")),
            )
            hashes = [str(line.get("doc_hash")) for line in own]
            for metric in own[0].get("metrics") or ():
                score = table.get(f"{metric},{filter_name}")
                values = _values([line.get(metric) for line in own], score)
                if values is None:
                    continue
                one = _pack(task, metric, filter_name, hashes=hashes, values=values)
                size += len(one.values)
                if size > MOST_BYTES:
                    return tuple(found)
                found.append(one)
    return tuple(found)


def weightings(record: Mapping[str, Any], found: Iterable[Outcomes]) -> tuple[Weighting, ...]:
    """How each group's score comes from its tasks': lm-eval weighs them by their documents, or all alike.

    Earlier versions of lm-eval do not keep which of the two a group does, so it is seen from the numbers.
    """
    known = {(one.task, one.metric, one.filter): one.count for one in found}
    return tuple(_weightings(record, known))


def _weightings(record: Mapping[str, Any], known: Mapping[tuple[str, str, str], int]) -> Iterator[Weighting]:
    tables = dict(record["results"]) | dict(record.get("groups", {}))
    for group in record.get("group_subtasks", {}):
        leaves = sorted(_leaves(record, group))
        if leaves == [group]:
            continue
        for key, score in tables.get(group, {}).items():
            metric, _, filter_name = key.partition(",")
            if not filter_name or not is_number(score):
                continue
            # A task that lacks the metric has no part in the group's score.
            sizes = {leaf: known[leaf, metric, filter_name] for leaf in leaves if (leaf, metric, filter_name) in known}
            scored = [leaf for leaf in leaves if key in tables.get(leaf, {})]
            if not sizes or len(sizes) < len(scored):
                continue
            values = {leaf: float(tables[leaf][key]) for leaf in sizes}
            for weights in (sizes, dict.fromkeys(sizes, 1)):
                shares = {leaf: weight / sum(weights.values()) for leaf, weight in weights.items()}
                if abs(math.fsum(shares[leaf] * value for leaf, value in values.items()) - float(score)) <= NEARLY:
                    yield Weighting(group=group, metric=metric, filter=filter_name, weights=shares)
                    break


def _values(given: Sequence[Any], score: Any) -> list[float] | None:
    """Numbers whose mean is the score; None where there are none.

    A document with several verdicts, such as IFEval's of each instruction, gets its share in the mean over all.
    """
    if not given or not is_number(score):
        return None
    sums: list[float] = []
    verdicts = 0
    for value in given:
        several = value if isinstance(value, list | tuple) else [value]
        if not several or not all(is_number(one) and math.isfinite(one) for one in several):
            return None
        sums.append(math.fsum(map(float, several)))
        verdicts += len(several)
    scale = len(given) / verdicts
    if abs(math.fsum(sums) / verdicts - float(score)) > NEARLY:
        return None
    return [scale * one for one in sums]


def _pack(task: str, metric: str, filter_name: str, *, hashes: Sequence[str], values: Sequence[float]) -> Outcomes:
    is_right_or_wrong = all(value in (0.0, 1.0) for value in values)
    if is_right_or_wrong:
        held = bytearray((len(values) + 7) // 8)
        for place, value in enumerate(values):
            held[place >> 3] |= int(value) << (place & 7)
        packed = bytes(held)
    else:
        packed = struct.pack(f"<{len(values)}f", *values)
    return Outcomes(
        task=task,
        metric=metric,
        filter=filter_name,
        documents=hashlib.sha256("\n".join([task, *hashes]).encode()).hexdigest()[:16],
        count=len(values),
        is_right_or_wrong=is_right_or_wrong,
        values=base64.b64encode(packed).decode(),
    )


def _leaves(record: Mapping[str, Any], group: str) -> set[str]:
    children = record.get("group_subtasks", {}).get(group)
    return {leaf for child in children for leaf in _leaves(record, child)} if children else {group}


def is_number(value: Any) -> bool:
    """Whether it is one number: Python's, or an array library's without dimensions."""
    return isinstance(value, int | float) or (hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0)
