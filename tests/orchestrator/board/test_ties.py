"""Ties: which rows cannot be told apart from the best of them, by documents that both answered where there are any."""

import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.board import Cell, Standing, Table
from orchestrator.board.chunks import Sorted
from orchestrator.board.pairs import paired_difference
from orchestrator.board.ties import Difference, Ties, Z, independent
from orchestrator.results.outcomes import as_record, read_strata, spread_of_difference
from orchestrator.suites import Part, SuiteBenchmark
from orchestrator.wire import Outcomes, ScoreDone, ScoreValue, Weighting
from tests.orchestrator.board.rows import DEMO, WHOLE, row
from workers.harness import outcomes

NAMES = ("Letters", "Stories", "Sums")


def done(values: dict[str, list[float]], *, group: dict[str, float] | None = None, metric: str = "acc") -> ScoreDone:
    """A score stage's result of these tasks, of which each document came to these values."""
    samples = {task: [_line(n, {metric: value}) for n, value in enumerate(own)] for task, own in values.items()}
    results = {task: {f"{metric},none": math.fsum(own) / len(own)} for task, own in values.items()}
    record: dict[str, Any] = {"results": results, "group_subtasks": {}}
    if group:
        record["group_subtasks"] = {"group": list(values)}
        results["group"] = {f"{metric},none": math.fsum(group[t] * results[t][f"{metric},none"] for t in values)}
    each = outcomes.outcomes(record, samples)
    scores = tuple(
        ScoreValue(task=task, metric=metric, filter="none", value=own[f"{metric},none"], stderr=0.1, samples=1)
        for task, own in results.items()
    )
    return ScoreDone(
        results="",
        scores=scores,
        provenance={},
        outcomes=each,
        weightings=outcomes.weightings(record, each),
    )


def _line(number: int, metrics: dict[str, Any]) -> dict[str, Any]:
    return {"doc_hash": f"{number * 7919 % 1000003:x}", "filter": "none", "metrics": list(metrics)} | metrics


def _benchmark(*parts: Part, normalised: bool = True) -> SuiteBenchmark:
    return SuiteBenchmark(name="B", tasks=("t",), parts=parts, normalised=normalised)


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60),
    st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=2, max_size=30),
    st.sampled_from([0.0, 0.25, 0.5]),
)
@settings(max_examples=40, deadline=None)
def test_the_paired_error_is_that_of_the_differences_document_by_document(
    rights: list[tuple[bool, bool]], numbers: list[tuple[float, float]], baseline: float
) -> None:
    benchmark = _benchmark(Part(task="plain", metric="acc", baseline=baseline), Part(task="numbers", metric="acc"))
    sides = [
        read_strata(
            as_record(benchmark, done({"plain": [float(p[i]) for p in rights], "numbers": [p[i] for p in numbers]}))
        )
        for i in (0, 1)
    ]
    spread = spread_of_difference(*sides)
    assert spread is not None
    brute = 0.0
    for pairs, low in ((rights, baseline), (numbers, 0.0)):
        differences = [(float(a) - float(b)) * 100 / (1 - low) / 2 for a, b in pairs]
        brute += statistics.variance(differences) / len(differences)
    assert spread.variance == pytest.approx(brute, rel=1e-5, abs=1e-6)
    assert spread.documents == len(rights) + len(numbers)


def test_two_metrics_of_a_task_are_paired_together_and_several_verdicts_of_a_document_too() -> None:
    chance = random.Random(5)
    made = []
    for _ in range(2):
        verdicts = [[chance.random() < 0.6 for _ in range(1 + n % 3)] for n in range(40)]
        lines = [_line(n, {"whole": float(all(v)), "each": v}) for n, v in enumerate(verdicts)]
        flat = [one for v in verdicts for one in v]
        scores = {"whole": statistics.fmean(all(v) for v in verdicts), "each": statistics.fmean(flat)}
        record = {"results": {"t": {f"{name},none": value for name, value in scores.items()}}}
        values = [
            ScoreValue(task="t", metric=name, filter="none", value=value, stderr=None, samples=40)
            for name, value in scores.items()
        ]
        score = ScoreDone(
            results="", scores=tuple(values), provenance={}, outcomes=outcomes.outcomes(record, {"t": lines})
        )
        strata = read_strata(
            as_record(_benchmark(Part(task="t", metric="whole"), Part(task="t", metric="each")), score)
        )
        points = [50 * all(v) + 50 * sum(v) * 40 / len(flat) for v in verdicts]
        assert statistics.fmean(points) == pytest.approx(50 * scores["whole"] + 50 * scores["each"])
        made.append((strata, [points[n] for n in sorted(range(40), key=lambda n: str(lines[n]["doc_hash"]))]))
    spread = spread_of_difference(made[0][0], made[1][0])
    assert spread is not None
    differences = [a - b for a, b in zip(made[0][1], made[1][1], strict=True)]
    assert spread.variance == pytest.approx(statistics.variance(differences) / 40, rel=1e-5)


@pytest.mark.parametrize("weights", [{"a": 0.2, "b": 0.8}, {"a": 0.5, "b": 0.5}])
def test_a_group_weighs_its_tasks_as_the_harness_did(weights: dict[str, float]) -> None:
    ours = {"a": [1.0, 0.0, 1.0, 1.0, 0.0] * 4, "b": [1.0, 1.0, 0.0, 1.0, 1.0] * 16}
    theirs = {"a": [0.0, 0.0, 1.0, 0.0, 0.0] * 4, "b": [1.0, 0.0, 0.0, 0.0, 1.0] * 16}
    benchmark = _benchmark(Part(task="group", metric="acc"))
    sides = [read_strata(as_record(benchmark, done(one, group=weights))) for one in (ours, theirs)]
    spread = spread_of_difference(*sides)
    assert spread is not None
    brute = 0.0
    for task, weight in weights.items():
        differences = [a - b for a, b in zip(ours[task], theirs[task], strict=True)]
        brute += (100 * weight) ** 2 * statistics.variance(differences) / len(differences)
    assert spread.variance == pytest.approx(brute)


def test_documents_that_are_not_the_same_are_never_paired() -> None:
    benchmark = _benchmark(Part(task="t", metric="acc"))
    first = read_strata(as_record(benchmark, done({"t": [1.0, 0.0, 1.0]})))
    longer = read_strata(as_record(benchmark, done({"t": [1.0, 0.0, 1.0, 1.0]})))
    other = read_strata(as_record(_benchmark(Part(task="u", metric="acc")), done({"u": [1.0, 0.0, 1.0]})))
    assert spread_of_difference(first, longer) is None
    assert spread_of_difference(first, other) is None
    assert spread_of_difference(first, ()) is None
    assert spread_of_difference(first, first) is not None


def test_a_number_that_is_no_mean_over_documents_is_not_kept() -> None:
    lines = [_line(n, {"f1": float(n % 2)}) for n in range(10)]
    assert outcomes.outcomes({"results": {"t": {"f1,none": 0.7}}}, {"t": lines}) == ()
    perplexity = [_line(n, {"word_perplexity": (-3.0, 2)}) for n in range(10)]
    assert outcomes.outcomes({"results": {"t": {"word_perplexity,none": 4.48}}}, {"t": perplexity}) == ()
    kept = as_record(_benchmark(Part(task="t", metric="f1")), done({"t": [1.0, 0.0]}))
    assert kept == []


@pytest.mark.parametrize("weight", [math.nan, math.inf, 1e300, -1.0, 1.5])
def test_weights_that_no_mean_has_are_not_kept(weight: float) -> None:
    given = done({"a": [1.0, 0.0], "b": [1.0, 0.0]}, group={"a": 0.5, "b": 0.5})
    bad = given.weightings[0].model_copy(update={"weights": {"a": weight, "b": 0.5}})
    benchmark = _benchmark(Part(task="group", metric="acc"))
    assert as_record(benchmark, given) != []
    assert as_record(benchmark, given.model_copy(update={"weightings": (bad,)})) == []


def test_numbers_beyond_what_is_kept_of_them_refuse_no_score() -> None:
    given = done({"t": [3e38, -3e38, 1.5]})
    twice = given.outcomes[0].model_copy(update={"metric": "other"})
    scores = (*given.scores, given.scores[0].model_copy(update={"metric": "other"}))
    both = given.model_copy(update={"outcomes": (*given.outcomes, twice), "scores": scores})
    assert as_record(_benchmark(Part(task="t", metric="acc"), Part(task="t", metric="other")), both) == []


@pytest.mark.parametrize("values", ["AAAA", "/w==", "no base64 at all", ""])
def test_damaged_values_are_not_kept_and_refuse_no_score(values: str) -> None:
    given = done({"t": [1.0, 0.0]})
    bad = Outcomes(task="t", metric="acc", filter="none", documents="d", count=2, is_right_or_wrong=True, values=values)
    damaged = given.model_copy(update={"outcomes": (bad,)})
    assert as_record(_benchmark(Part(task="t", metric="acc")), damaged) == []
    astray = Weighting(group="t", metric="acc", filter="none", weights={"gone": 1.0})
    given = given.model_copy(update={"outcomes": (), "weightings": (astray,)})
    assert as_record(_benchmark(Part(task="t", metric="acc")), given) == []


def _compared(ours: list[float], theirs: list[float]) -> Difference:
    """Two rows whose three benchmarks have these documents."""
    benchmark = _benchmark(Part(task="t", metric="acc"))
    strata = [dict.fromkeys(NAMES, read_strata(as_record(benchmark, done({"t": one})))) for one in (ours, theirs)]
    rows = [row(n, 100 * statistics.fmean(one)) for n, one in enumerate((ours, theirs), start=1)]
    return paired_difference(rows[0], rows[1], *strata)


def test_identical_models_are_a_tie_and_one_that_is_better_everywhere_is_not() -> None:
    chance = random.Random(3)
    values = [chance.random() / 2 for _ in range(50)]
    assert not _compared(values, values).is_clear
    assert _compared([value + 0.25 for value in values], values).is_clear
    assert _compared([1.0] * 9, [0.0] * 9).is_clear


def test_pairing_tells_apart_what_standard_errors_do_not() -> None:
    rights = [float(n % 2) for n in range(200)]
    better = [1.0 if n % 20 == 0 else one for n, one in enumerate(rights)]
    found = _compared(better, rights)
    cells = {name: Cell(50.0, stderr=3.5) for name in NAMES}
    apart = independent(row(1, 55.0, cells=cells), row(2, 50.0, cells=cells))
    assert found.value == pytest.approx(apart.value) == pytest.approx(5.0)
    assert (found.is_clear, found.documents, found.benchmarks) == (True, 600, 3)
    assert found.stderr < apart.stderr


def test_a_benchmark_without_documents_counts_by_its_standard_errors() -> None:
    benchmark = _benchmark(Part(task="t", metric="acc"))
    strata = {"Sums": read_strata(as_record(benchmark, done({"t": [1.0, 0.0, 1.0, 0.0]})))}
    found = paired_difference(row(1, 60.0), row(2, 50.0), strata, strata)
    assert (found.documents, found.benchmarks) == (4, 1)
    assert found.stderr == pytest.approx(math.sqrt(4.0) / 3)


def test_a_tie_ends_at_the_first_row_that_can_be_told_apart_from_its_best() -> None:
    error = 1 / math.sqrt(3)
    far = Z * error * math.sqrt(2)
    rows = [row(n, 50.0 - part * far) for n, part in enumerate((0.0, 0.9, 1.1, 2.0, 2.2, 3.3), start=1)]
    table = Table(DEMO, rows)
    ties = [table.tie(one) for one in rows]
    assert [(one.first, one.last, one.best.evaluation) for one in ties if one] == [
        (1, 2, 1), (1, 2, 1), (3, 4, 3), (3, 4, 3), (5, 5, 5), (6, 6, 6),
    ]  # fmt: skip
    assert ties[0] is not None
    assert ties[0].difference is None
    assert Table(DEMO, [row(1, 1.0, document_limit=2)]).tie(row(1, 1.0)) is None


def _known_by(seed: int) -> Any:
    """A difference for each pair, some of which are not known."""

    def known(best: Standing, other: Standing) -> Difference | None:
        drawn = random.Random(seed * 1_000_003 + best.evaluation * 1009 + other.evaluation).random()
        value = (best.average or 0.0) - (other.average or 0.0)
        return Difference(value, 3 * drawn, 7, 3) if drawn > 0.2 else None

    return known


CHANGES = st.lists(
    st.lists(st.tuples(st.integers(1, 12), st.none() | st.integers(0, 20)), max_size=4), min_size=1, max_size=6
)


@given(CHANGES, st.integers(0, 1000), st.integers(0, 11))
@settings(max_examples=80, deadline=None)
def test_changed_ties_are_those_of_a_table_made_anew_in_any_order(
    changes: list[list[tuple[int, int | None]]], seed: int, asked: int
) -> None:
    known = _known_by(seed)
    table = Table(DEMO, [row(n, float(n % 7)) for n in range(1, 9)], known=known)
    there = {n: row(n, float(n % 7)) for n in range(1, 9)}
    for change in changes:
        new = {n: None if average is None else row(n, float(average)) for n, average in change}
        if len(table.by_rank()) > asked:
            table.ties.of(asked)  # a reader looks, as far as this
        table = table.changed(new)
        there = {n: one for n, one in (there | new).items() if one is not None}
    shuffled = list(there.values())
    random.Random(seed).shuffle(shuffled)
    anew = Table(DEMO, shuffled, known=known)
    assert {n: table.tie(one) for n, one in there.items()} == {n: anew.tie(one) for n, one in there.items()}


def test_ties_that_were_guessed_are_settled_and_only_what_changed_is_asked_again() -> None:
    rows = [row(n, 100.0 - n / 2) for n in range(1, 101)]
    asked: list[tuple[int, int]] = []
    sure: dict[tuple[int, int], Difference] = {}

    def compare(best: Standing, other: Standing) -> Difference:
        key = best.evaluation, other.evaluation
        if key not in sure:
            asked.append(key)
            sure[key] = Difference((best.average or 0.0) - (other.average or 0.0), 1.0, 10, 3)
        return sure[key]

    def known(best: Standing, other: Standing) -> Difference | None:
        return sure.get((best.evaluation, other.evaluation))

    table = Table(DEMO, rows, known=known)
    guessed = table.tie(rows[0])
    table.settle_ties(compare)
    settled = table.tie(rows[0])
    assert guessed is not None
    assert settled is not None
    assert (guessed.last, settled.last) == (4, 4)
    assert table.ties.is_settled
    assert len(asked) == 99
    asked.clear()
    table = table.changed({101: row(101, 60.1)})
    table.settle_ties(compare)
    assert table.ties.is_settled
    assert len(asked) <= 10
    fresh = Table(DEMO, [*rows, row(101, 60.1)], known=known)
    fresh.settle_ties(compare)
    assert [table.tie(one) for one in rows] == [fresh.tie(one) for one in rows]


def test_ties_of_nothing_are_settled() -> None:
    empty = Ties(Sorted(), [])
    empty.walk(lambda best, other: None)
    assert empty.is_settled
    assert set(WHOLE) == set(NAMES)
