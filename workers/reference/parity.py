"""Whether two runs of a benchmark agree: sample by sample, and in one verdict with its reasons. Pure.

In float32 answers are equal up to rounding, so single answers decide. In bfloat16 and float16 another order of the same
sums moves a log-likelihood by a tenth of a nat, so only the scores decide.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from orchestrator.statistics import mcnemar_exact, mean, paired_difference
from orchestrator.wire import Precision
from workers.reference.answers import Answer, Sample, answers, by_document, is_choice, metric_value, values

LARGEST_DIFFERENCE = 1e-3
"""Of one log-likelihood in float32, in nats."""

RELATIVE_DIFFERENCE = 1e-6
"""What rounding in float32 may add for a log-likelihood of thousands of nats: a whole text's."""

TIE = 1e-4
"""A reference margin, in nats, under which a choice may fall either way."""

UNEQUAL_SHARE = 0.02
"""Of greedy texts and flags in float32: their own near ties cannot be seen, so a few may differ."""

MOST_LISTED = 10

EXACT = (Precision.FLOAT32,)


@dataclass(frozen=True)
class ChangedChoice:
    task: str
    document: int
    rule: str
    """`plain` or `by length` (what `acc_norm` counts)."""
    reference: int
    """Index of the reference's choice."""
    choice: int
    margin: float
    """How much the reference prefers its choice to the other one, in nats."""


@dataclass(frozen=True)
class MetricPair:
    metric: str
    filter: str
    documents: int
    value: float
    stderr: float | None
    reference: float
    reference_stderr: float | None
    difference: float
    paired_stderr: float | None
    only_ours: int | None
    """Documents that only this run got right; None where the metric is not 0 or 1."""
    only_reference: int | None
    mcnemar_p: float | None
    judged: bool
    """Whether the verdict looks at it."""

    @property
    def within_error(self) -> bool:
        """At most one paired standard error apart: a single document that differs is exactly one."""
        return self.difference == 0 or abs(self.difference) <= (self.paired_stderr or 0.0) * (1 + 1e-9)


@dataclass
class BenchmarkParity:
    """How a benchmark's two runs compare; `reasons` says why they are not in parity, and is empty when they are."""

    benchmark: str
    documents: int = 0
    log_likelihoods: int = 0
    largest_difference: float = 0.0
    mean_difference: float = 0.0
    beyond: int = 0
    """Log-likelihoods further apart than float32 allows."""
    choices: int = 0
    changed: list[ChangedChoice] = field(default_factory=list)
    """Largest margin first."""
    texts: int = 0
    texts_equal: int = 0
    flags: int = 0
    """Greedy flags of documents that are no choice."""
    flags_equal: int = 0
    sampled: list[str] = field(default_factory=list)
    """Tasks whose texts are drawn, and so not compared one by one."""
    metrics: list[MetricPair] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Differences of what was asked: then nothing else counts."""
    reasons: list[str] = field(default_factory=list)

    @property
    def in_parity(self) -> bool:
        return not self.reasons


def compare(
    benchmark: str,
    ours: dict[str, list[Sample]],
    reference: dict[str, list[Sample]],
    *,
    precision: Precision,
    sampled: Collection[str] = (),
    judged: Collection[tuple[str, str]] | None = None,
) -> BenchmarkParity:
    """Pair two runs' samples by task, document and filter.

    `sampled` names tasks whose texts are drawn; `judged` the (metric, filter) pairs that the verdict looks at, all
    when None.
    """
    found = BenchmarkParity(benchmark)
    pairs = list(_pairs(found, ours, reference))
    apart: list[float] = []
    seen: set[tuple[str, int]] = set()
    for task, mine, theirs in pairs:
        # A document has one line for each filter, all with the same answers.
        if (task, mine["doc_id"]) not in seen:
            seen.add((task, mine["doc_id"]))
            _compare_answers(found, task, mine, theirs, apart=apart, drawn=task in sampled)
    found.documents = len(seen)
    found.sampled = sorted(task for task in sampled if task in ours)
    found.log_likelihoods = len(apart)
    found.largest_difference = max(apart, default=0.0)
    found.mean_difference = math.fsum(apart) / len(apart) if apart else 0.0
    found.changed.sort(key=lambda change: -change.margin)
    found.metrics = list(_metrics(pairs, judged))
    found.reasons = _reasons(found, exact=precision in EXACT)
    return found


def _pairs(
    found: BenchmarkParity, ours: dict[str, list[Sample]], reference: dict[str, list[Sample]]
) -> Iterator[tuple[str, Sample, Sample]]:
    """Samples of both runs; what only one has, or was asked otherwise, is a fault."""
    for task in sorted(ours.keys() | reference.keys()):
        mine, theirs = by_document(ours.get(task, [])), by_document(reference.get(task, []))
        if missing := mine.keys() ^ theirs.keys():
            found.faults.append(f"{task}: {len(missing)} samples are in one of the two runs only")
        asked = 0
        for key in sorted(mine.keys() & theirs.keys()):
            asked += any(mine[key][name] != theirs[key][name] for name in ("doc_hash", "prompt_hash", "target_hash"))
            yield task, mine[key], theirs[key]
        if asked:
            found.faults.append(f"{task}: {asked} samples differ in document, prompt or target")


def _compare_answers(
    found: BenchmarkParity, task: str, ours: Sample, theirs: Sample, *, apart: list[float], drawn: bool
) -> None:
    mine, reference = answers(ours), answers(theirs)
    if len(mine) != len(reference):
        found.faults.append(f"{task}: document {ours['doc_id']} has {len(mine)} answers and {len(reference)}")
        return
    chosen = is_choice(theirs)
    for answer, other in zip(mine, reference, strict=True):
        _compare_answer(found, answer, other, apart=apart, chosen=chosen, drawn=drawn)
    if not chosen:
        return
    found.choices += 1
    scores = values(ours)
    for rule, given in values(theirs).items():
        best, choice = _first_best(given), _first_best(scores[rule])
        if best != choice:
            change = ChangedChoice(task, ours["doc_id"], rule, best, choice, given[best] - given[choice])
            found.changed.append(change)


def _compare_answer(
    found: BenchmarkParity, answer: Answer, other: Answer, *, apart: list[float], chosen: bool, drawn: bool
) -> None:
    if answer.logprob is None or other.logprob is None:
        if not drawn:
            found.texts += 1
            found.texts_equal += answer.text == other.text
        return
    difference = abs(answer.logprob - other.logprob)
    apart.append(difference)
    # Written so that NaN counts, too.
    found.beyond += not difference < max(LARGEST_DIFFERENCE, RELATIVE_DIFFERENCE * abs(other.logprob))
    if other.greedy is not None and not chosen:
        found.flags += 1
        found.flags_equal += answer.greedy == other.greedy


def _first_best(scores: list[float]) -> int:
    """As numpy's argmax, which lm-eval uses: the first of equals."""
    return max(range(len(scores)), key=scores.__getitem__)


def _metrics(
    pairs: list[tuple[str, Sample, Sample]], judged: Collection[tuple[str, str]] | None
) -> Iterator[MetricPair]:
    """Each metric over all documents of the benchmark; of a group's tasks each document weighs the same."""
    columns: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _, mine, theirs in pairs:
        for metric in theirs["metrics"]:
            ours, reference = metric_value(mine, metric), metric_value(theirs, metric)
            if ours is not None and reference is not None:
                columns.setdefault((metric, theirs["filter"]), []).append((ours, reference))
    for (metric, filter_name), column in columns.items():
        first, second = [ours for ours, _ in column], [reference for _, reference in column]
        value, stderr = mean(first)
        reference, reference_stderr = mean(second)
        difference, paired_stderr = paired_difference(first, second)
        binary = set(first) | set(second) <= {0.0, 1.0}
        only_ours = column.count((1.0, 0.0)) if binary else None
        only_reference = column.count((0.0, 1.0)) if binary else None
        yield MetricPair(
            metric=metric,
            filter=filter_name,
            documents=len(column),
            value=value,
            stderr=stderr,
            reference=reference,
            reference_stderr=reference_stderr,
            difference=difference,
            paired_stderr=paired_stderr,
            only_ours=only_ours,
            only_reference=only_reference,
            mcnemar_p=mcnemar_exact(only_ours or 0, only_reference or 0) if binary else None,
            judged=judged is None or (metric, filter_name) in judged,
        )


def _reasons(found: BenchmarkParity, *, exact: bool) -> list[str]:
    reasons = list(found.faults)
    if not found.documents:
        reasons.append("no document is in both runs")
    if exact:
        reasons += _exact_reasons(found)
    reasons += [
        f"{pair.metric} ({pair.filter}) is {pair.difference:+.4f} apart, more than its paired standard error of "
        f"{pair.paired_stderr or 0.0:.4f}"
        for pair in found.metrics
        # In float32 choices and log-likelihoods are held to more; there the texts' scores are all that is left.
        if pair.judged and not pair.within_error and (not exact or found.texts or found.sampled)
    ]
    return reasons


def _exact_reasons(found: BenchmarkParity) -> Iterator[str]:
    if found.beyond:
        yield (
            f"{found.beyond} of {found.log_likelihoods} log-likelihoods are {LARGEST_DIFFERENCE:g} or more apart "
            f"(the largest {found.largest_difference:.2g})"
        )
    decided = [change for change in found.changed if not change.margin < TIE]
    if decided:
        yield f"{len(decided)} choices differ where the reference was not tied (margin {TIE:g} or more)"
    for what, count, equal in (
        ("greedy texts", found.texts, found.texts_equal),
        ("greedy flags", found.flags, found.flags_equal),
    ):
        if count - equal > UNEQUAL_SHARE * count:
            yield f"{count - equal} of {count} {what} differ"
