"""Two evaluations of a benchmark, sample by sample: which samples belong together, what changed, and how surely. Pure.

What is compared is what was asked and what it came to: likelihoods differ by rounding from one engine start to the
next, so of a choice only the chosen letter counts as the answer.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.statistics import Estimate, confidence_interval, mcnemar_exact, mean, paired_difference
from submissions.sample import arguments_of, present
from submissions.verdicts import Counted, deciding_metrics


class Entry(NamedTuple):
    """What is remembered of one record to pair and compare it."""

    number: int
    """Line of the samples file."""
    document: str
    document_digest: str
    filter: str
    asked: str
    """Digest of prompts, continuations and generation arguments."""
    answer: str
    """The chosen letter, or a digest of what was generated."""
    is_right: bool | None
    value: float | None
    """Of the first counted metric, where it is a number."""


class Pair(NamedTuple):
    """One document in both evaluations."""

    a: Entry
    b: Entry

    @property
    def asked_otherwise(self) -> bool:
        return self.a.asked != self.b.asked

    @property
    def answered_otherwise(self) -> bool:
        return self.a.answer != self.b.answer

    @property
    def judged_otherwise(self) -> bool:
        return (self.a.is_right, self.a.value) != (self.b.is_right, self.b.value)


KINDS: dict[str, Callable[[Pair], bool]] = {
    "judged": lambda pair: pair.judged_otherwise,
    "better": lambda pair: _score(pair.b) > _score(pair.a),
    "worse": lambda pair: _score(pair.b) < _score(pair.a),
    "answered": lambda pair: pair.answered_otherwise,
    "asked": lambda pair: pair.asked_otherwise,
    "all": lambda pair: True,
}
"""Which pairs a reader may want to see, by name."""


class Pairing(NamedTuple):
    pairs: tuple[Pair, ...]
    only_a: int
    """Documents that the other has not."""
    only_b: int


class Comparison(NamedTuple):
    """Statistics of the documents that both have."""

    documents: int
    by_kind: Mapping[str, int]
    """How many pairs there are of each of `KINDS`."""
    both_right: int
    only_a_right: int
    only_b_right: int
    both_wrong: int
    mcnemar_p: float | None
    """None where the counted number is no plain right or wrong."""
    mean_a: Estimate | None
    mean_b: Estimate | None
    difference: Estimate | None
    """b less a, document by document."""
    low: float | None
    """Of its 95 % interval, over documents."""
    high: float | None


def as_entry(number: int, record: Mapping[str, Any], counted: Sequence[Counted]) -> Entry:
    """What is remembered of a record as lm-eval wrote it."""
    shown = present(record, counted)
    chosen = next((choice.letter for choice in shown.choices if choice.is_chosen), "")
    value = next(iter(deciding_metrics(record, counted)), None)
    return Entry(
        number=number,
        document=shown.document,
        document_digest=str(record.get("doc_hash") or _digest(record.get("doc"))),
        filter=shown.filter,
        asked=_digest(arguments_of(record.get("arguments"))),
        answer=chosen if shown.choices else _digest([shown.responses, shown.filtered]),
        is_right=shown.is_right,
        value=_number(record.get(value)) if value else None if shown.is_right is None else float(shown.is_right),
    )


def pair(a: Iterable[Entry], b: Iterable[Entry]) -> Pairing:
    """Which records belong together: by contents, or by number where the same numbers hold other contents.

    Of equal documents the first belongs to the first, the second to the second. Each side holds one filter's records.
    """
    first, second = list(a), list(b)
    same_contents = sorted(one.document_digest for one in first) == sorted(one.document_digest for one in second)
    same_numbers = sorted(one.document for one in first) == sorted(one.document for one in second)
    # A harness that processes documents otherwise changes all contents and no number; an upload may reorder them.
    by_number = same_numbers and not same_contents
    keys = _keys(first, by_number=by_number), _keys(second, by_number=by_number)
    there = dict(zip(keys[1], second, strict=True))
    pairs = tuple(Pair(entry, there[key]) for key, entry in zip(keys[0], first, strict=True) if key in there)
    return Pairing(pairs, only_a=len(first) - len(pairs), only_b=len(second) - len(pairs))


def compare(pairs: Sequence[Pair]) -> Comparison:
    """The statistics of these pairs."""
    judged = [pair for pair in pairs if pair.a.is_right is not None and pair.b.is_right is not None]
    outcomes = Counter((pair.a.is_right, pair.b.is_right) for pair in judged)
    values = [(pair.a.value, pair.b.value) for pair in pairs]
    known = [(x, y) for x, y in values if x is not None and y is not None]
    a, b = [x for x, _ in known], [y for _, y in known]
    difference = paired_difference(b, a) if known else None
    interval = confidence_interval(difference, len(known)) if difference else None
    return Comparison(
        documents=len(pairs),
        by_kind={name: sum(1 for pair in pairs if is_it(pair)) for name, is_it in KINDS.items()},
        both_right=outcomes[True, True],
        only_a_right=outcomes[True, False],
        only_b_right=outcomes[False, True],
        both_wrong=outcomes[False, False],
        mcnemar_p=mcnemar_exact(outcomes[True, False], outcomes[False, True]) if judged else None,
        mean_a=mean(a) if known else None,
        mean_b=mean(b) if known else None,
        difference=difference,
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
    )


class Difference(NamedTuple):
    """Two texts as what they share at both ends, and what differs between."""

    head: str
    a: str
    b: str
    tail: str


def difference(a: str, b: str) -> Difference:
    """Where two texts differ, from the first to the last character that does, in whole words."""
    if a == b:
        return Difference(a, "", "", "")
    most = min(len(a), len(b))
    start = next((place for place in range(most) if a[place] != b[place]), most)
    while start and not a[start - 1].isspace():
        start -= 1
    end = next((back for back in range(most - start) if a[-1 - back] != b[-1 - back]), most - start)
    while end and not a[len(a) - end].isspace():
        end -= 1
    return Difference(a[:start], a[start : len(a) - end], b[start : len(b) - end], a[len(a) - end :])


def _keys(entries: Sequence[Entry], *, by_number: bool) -> list[tuple[str, int]]:
    """A key for each record, which its counterpart has, too."""
    seen: Counter[str] = Counter()
    keys = []
    for entry in entries:
        name = entry.document if by_number else entry.document_digest
        keys.append((name, seen[name]))
        seen[name] += 1
    return keys


def _score(entry: Entry) -> float:
    if entry.value is not None:
        return entry.value
    return float(bool(entry.is_right))


def _number(value: Any) -> float | None:
    if isinstance(value, bool | int | float) and value == value and abs(value) != float("inf"):
        return float(value)
    return None


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=12).hexdigest()
