"""The order of the queue follows the formula of docs/scheduling.md, and its terms are bounded."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.scheduling import turns
from orchestrator.scheduling.turns import boosted, in_line, turn
from orchestrator.wire import Stage
from tests.orchestrator.yard import Yard

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAGE = Path(__file__).parents[3] / "docs" / "scheduling.md"


def test_the_page_states_the_formula_of_the_code() -> None:
    assert turns.__doc__ is not None
    formula = [line.strip() for line in turns.__doc__.splitlines() if line.startswith("    ")]
    page = [line.strip() for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("    ")]
    shown = page[page.index(formula[0]) :][: len(formula)]
    assert [line.split(")")[0] for line in shown[:-1]] == [line.split(")")[0] for line in formula[:-1]]
    assert shown[-1].split("(")[0] == formula[-1].split("(")[0]


@pytest.mark.parametrize(
    ("facts", "hours"),
    [
        ({}, 0),
        ({"parameters": 70_000_000_000}, 7),
        ({"parameters": 2_000_000_000_000}, 12),
        ({"boost": 2}, -48),
        ({"boost": -1}, 24),
        ({"boost": 1000}, -30 * 24),
        ({"votes": 5}, -5),
        ({"votes": 500}, -48),
        ({"boost": 1, "votes": 1}, -25),
    ],
)
def test_a_turn_is_what_the_formula_says(facts: dict[str, int], hours: float) -> None:
    assert turn(NOW, **facts) - NOW == timedelta(hours=hours)


@settings(deadline=None)
@given(st.integers(-(10**4), 10**4), st.integers(), st.integers(min_value=0), st.integers())
def test_whatever_the_facts_the_turn_is_within_bounds(last: int, parameters: int, votes: int, boost: int) -> None:
    place = in_line(NOW, last=NOW + timedelta(hours=last))
    found = turn(place, parameters=max(parameters, 0), votes=votes, boost=boost) - NOW
    assert -timedelta(days=32) <= found <= timedelta(days=131)


@settings(deadline=None)
@given(st.integers(-40, 40), st.integers(-40, 40))
def test_a_boost_that_is_taken_back_leaves_no_trace(before: int, after: int) -> None:
    moved = boosted(NOW, before=before, after=after)
    assert boosted(moved, before=after, after=before) == NOW


def test_the_many_evaluations_of_one_submitter_are_spread_and_others_come_between(yard: Yard) -> None:
    several = [yard.submit(submitter="ann") for _ in range(3)]
    yard.wait(3600)
    other = yard.submit(submitter="bob")
    yard.beat("harness-1", slots=8)
    assert [order.evaluation for order in sorted(yard.tick(), key=lambda order: order.job)] == sorted(
        [several[0]] * 2 + [several[1]] * 2 + [several[2]] * 2 + [other] * 2
    )
    found = {evaluation: yard.job(evaluation, Stage.PREPARE, "ARC").turn_at for evaluation in (*several, other)}
    assert sorted(found, key=lambda evaluation: found[evaluation] or NOW) == [several[0], other, *several[1:]]


def test_what_a_submitter_brings_later_goes_behind_what_waits_of_theirs(yard: Yard) -> None:
    several = [yard.submit(submitter="ann") for _ in range(4)]
    for done in several[:3]:
        yard.cancel(done)
    yard.wait(3600)
    several.append(yard.submit(submitter="ann"))
    found = [yard.job(evaluation, Stage.PREPARE, "ARC").turn_at for evaluation in several[3:]]
    assert found[1] - found[0] == turns.APART
    yard.wait(30 * 3600)
    for waiting in several[3:]:
        yard.cancel(waiting)
    assert yard.job(yard.submit(submitter="ann"), Stage.PREPARE, "ARC").turn_at == yard.now
