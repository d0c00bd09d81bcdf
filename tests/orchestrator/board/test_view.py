"""What a request shows: rows, order, ranks, ties, counts; and that a changed table is the same as one made anew."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.board import Cell, Flagging, Standing, Table, columns_of
from orchestrator.board.request import BoardRequest
from orchestrator.board.table import BY_RANK, MOST_MADE_UP, MOST_ORDERS
from tests.orchestrator.board.rows import DEMO, ask, numbers, row

ROWS = [
    row(1, 70.0, model="acme/Big", parameters=70_000_000_000, model_type="chat"),
    row(2, 60.0, model="acme/small", parameters=1_000_000_000, precision="float16", licence="mit"),
    row(3, 50.0, model="other/Llama-3.1+x", architecture="LlamaForCausalLM"),
]
TABLE = Table(DEMO, ROWS, official=frozenset({"other"}))


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", [1, 2, 3]),
        ("order=down", [3, 2, 1]),
        ("sort=average", [3, 2, 1]),
        ("sort=average&order=down", [1, 2, 3]),
        ("sort=parameters", [2, 1, 3]),
        ("sort=parameters&order=down", [1, 2, 3]),
        ("sort=model", [1, 2, 3]),
        ("sort=licence&order=down", [2, 1, 3]),
        ("sort=date&order=down", [3, 2, 1]),
        ("sort=Letters&order=down", [1, 2, 3]),
        ("sort=Letters&show=raw", [3, 2, 1]),
        ("sort=places", [1, 2, 3]),
        ("sort=no such column", [1, 2, 3]),
        ("q=ACME", [1, 2]),
        ("q=big; other", [1, 3]),
        ("q= ; ", [1, 2, 3]),
        ("q=@type:chat", [1]),
        ("q=@org:acme small", [2]),
        ("q=@licence:MIT;@architecture:llama", [2, 3]),
        ("q=^acme/(big|small)$", [1, 2]),
        ("q=3.1", [3]),
        ("type=chat", [1]),
        ("type=chat&type=unknown", [1, 2, 3]),
        ("precision=float16", [2]),
        ("min=1", [1, 2]),
        ("max=10", [2]),
        ("min=2&max=3", []),
        ("only=official", [3]),
        ("rows=2", [1, 2]),
        ("rows=2&page=2", [3]),
        ("rows=2&page=9", [3]),
    ],
)
def test_a_request_chooses_and_orders_rows_and_leaves_their_ranks(query: str, shown: list[int]) -> None:
    found = ask(TABLE, query)
    assert numbers(found) == shown
    assert all(line.rank == line.row.evaluation for line in found.lines)


def test_a_column_that_there_is_not_is_said_with_those_that_there_are() -> None:
    (sorting,) = ask(TABLE, "sort=licens").problems
    assert sorting.startswith("There is no column 'licens' to sort by; the rows stand by rank. Did you mean 'licence'?")
    (showing,) = ask(TABLE, "cols=model&cols=nope&cols=x").problems
    assert showing.startswith("There is no column 'nope', 'x' to show.")
    assert "Columns: rank, places, model," in showing
    assert ask(TABLE, "sort=rank&cols=model").problems == ()


def test_ranks_among_what_is_shown_are_asked_for() -> None:
    assert [line.rank for line in ask(TABLE, "min=0&rank=dynamic&q=small;other").lines] == [1]
    assert [line.rank for line in ask(TABLE, "rank=dynamic&q=small;other").lines] == [1, 2]


def test_hidden_kinds_are_left_out_and_counted() -> None:
    flagged = row(4, 40.0, flags=(Flagging("licence", "None is given."),))
    mixed = row(5, 30.0, parameters=8, active_parameters=2)
    foreign = [row(7, 10.0, on_hub=False), row(8, 9.0, imported_from="hf://datasets/acme/board")]
    table = Table(DEMO, [*ROWS, flagged, mixed, row(6, 20.0, model_type="merge"), *foreign])
    assert numbers(ask(table, "hide=merged&hide=moe&hide=flagged&hide=off-hub&hide=imported")) == [1, 2, 3]
    assert ask(table, "hide=moe").counts.hide == {"merged": 1, "moe": 1, "flagged": 1, "off-hub": 1, "imported": 1}


def test_a_size_filters_rows_apart_too_whatever_was_sorted_before() -> None:
    table = Table(DEMO, [*ROWS, row(4, 1.0, document_limit=2, parameters=2 * 10**9)])
    ask(table, "sort=parameters")
    assert [line.row.evaluation for line in ask(table, "min=1.5&max=3").apart] == [4]


@pytest.mark.parametrize(
    "at", ["2026-03-04", "2026-03-04T12:00:00", "2026-03-04T12:00:00+02:00", "", "0001-01-01", "x"]
)
def test_any_moment_is_one_in_utc_or_none(at: str) -> None:
    asked, ignored = BoardRequest.parse_kindly([("at", at)])
    assert (asked.at is None) == (at in ("", "0001-01-01", "x"))
    assert asked.at is None or asked.at.utcoffset() == timedelta(0)
    assert bool(ignored) == (at in ("0001-01-01", "x"))


def test_counts_say_what_each_further_choice_would_leave() -> None:
    found = ask(TABLE, "type=chat")
    assert found.counts.type == {"chat": 1, "unknown": 2}
    assert found.counts.precision == {"bfloat16": 1, "float16": 0}
    assert found.counts.sizes == {"edge": 0, "consumer": 0, "mid": 0, "large": 1}
    assert (found.fitting, found.ranked) == (1, 3)


def test_an_average_over_the_shown_benchmarks_orders_and_says_so() -> None:
    cells = [{"Letters": Cell(a), "Stories": Cell(b), "Sums": Cell(0.0)} for a, b in ((90.0, 10.0), (20.0, 85.0))]
    table = Table(DEMO, [row(1, 50.0, cells=cells[0]), row(2, 52.5, cells=cells[1])])
    found = ask(table, "cols=average&cols=Letters&avg=visible")
    assert [(line.row.evaluation, line.average, line.rank) for line in found.lines] == [(1, 90.0, 2), (2, 20.0, 1)]
    assert numbers(ask(table, "cols=average&cols=Letters")) == [2, 1]


def test_pinned_rows_stay_whatever_is_filtered() -> None:
    found = ask(TABLE, "q=nothing&pin=3&pin=2&pin=99")
    assert [line.row.evaluation for line in found.pinned] == [3, 2]
    assert found.lines == ()


def test_columns_are_chosen_and_ordered_and_the_model_is_always_there() -> None:
    assert [column.key for column in ask(TABLE, "cols=Sums&cols=nope&cols=licence").columns] == [
        "model",
        "Sums",
        "licence",
    ]
    assert [column.key for column in ask(TABLE).columns][:3] == ["rank", "model", "average"]
    assert len(ask(TABLE, everything=True).columns) == len(columns_of(DEMO))


def test_a_request_survives_its_own_address() -> None:
    query = (
        "suite=demo&q=a;b&type=chat&precision=float16&min=0.5&hide=moe&sort=Letters&order=down&cols=Sums&pin=3&page=2"
    )
    asked = BoardRequest.parse([tuple(part.split("=", 1)) for part in query.split("&")])  # type: ignore[misc]
    assert BoardRequest.parse(asked.pairs()) == asked
    assert ("page", "1") not in asked.pairs(sort="rank")
    assert asked.pairs(sort="rank", page=1)[-1] == ("pin", "3")


@pytest.mark.parametrize("parameters", [6_738_415_616, 32_763_876_352, 141_000_000_001])
def test_a_size_to_the_last_weight_holds_the_model_and_stays_so_in_addresses(parameters: int) -> None:
    table = Table(DEMO, [row(1, 5.0, parameters=parameters), row(2, 4.0, parameters=parameters + 1000)])
    shown = ask(table, f"min={parameters / 1e9!r}&max={parameters / 1e9!r}")
    assert numbers(shown) == [1]
    assert numbers(ask(table, shown.request.query(sort="model"))) == [1]


def test_what_no_row_has_any_more_is_no_choice() -> None:
    table = Table(DEMO, [row(1, 5.0, model_type="chat"), row(2, 4.0)])
    assert ask(table.changed({1: None})).counts.type == {"unknown": 1}


def test_choices_that_make_no_sense_are_left_out_and_named() -> None:
    asked, ignored = BoardRequest.parse_kindly([("min", "much"), ("page", "0"), ("q", "x"), ("precision", "float7")])
    assert (asked.q, asked.min, asked.page, ignored) == ("x", None, 1, ["min", "page", "precision"])


def test_an_expression_that_is_none_is_searched_as_text_and_said() -> None:
    found = ask(TABLE, "q=a(b;@colour:red acme")
    assert numbers(found) == [1, 2]
    assert "a(b" in found.problems[0]
    assert "@colour" in found.problems[1]


def test_an_evil_expression_costs_no_time() -> None:
    table = Table(DEMO, [row(1, 1.0, model="a" * 60 + "!")])
    assert numbers(ask(table, "q=(a+)+(a+)+(a+)+(a+)+$")) == []


def test_an_expression_that_compiles_to_much_is_none() -> None:
    """It would take milliseconds for each row, and the board has thousands."""
    found = ask(TABLE, r"q=(?:.?\b?){900}z;acme")
    assert numbers(found) == [1, 2]
    assert "(?:.?" in found.problems[0]


def test_so_many_expressions_are_searched_for_and_no_more() -> None:
    found = ask(TABLE, "q=a{9};b{9};c{9};^acme/B;^acme/s;^other;small")
    assert numbers(found) == [1, 2]
    assert found.problems == ("At most 4 regular expressions are searched for; 2 were left out.",)


def test_a_search_that_takes_too_long_finds_nothing_and_says_so() -> None:
    table = Table(DEMO, [row(number, 1.0) for number in range(600)])
    found = ask(table, "q=acme.*", search_seconds=0.0)
    assert numbers(found) == []
    assert "took too long" in found.problems[0]
    assert len(numbers(ask(table, "q=acme.*"))) == 600


def test_what_readers_make_up_is_not_kept_for_each_of_them() -> None:
    table = Table(DEMO, ROWS)
    for one in ("Letters", "Sums", "Stories"):
        assert numbers(ask(table, f"avg=visible&cols={one}&rank=dynamic&sort=average")) != []
    kept = {name for name in table.kept_orders if "average of" in name}
    assert kept == {"average of Sums", "average of Stories"}, "the last ones, for the pages that follow"
    for number in range(2 * MOST_ORDERS):
        assert table.in_order(f"made up {number}", lambda row: row.average)
    assert len(table.kept_orders) <= MOST_ORDERS + MOST_MADE_UP
    ask(table, "")
    assert BY_RANK in table.kept_orders


choices = st.sampled_from(["chat", "merge", "unknown"])
some_rows = st.lists(
    st.tuples(st.integers(1, 8), st.none() | st.integers(0, 5), choices, st.none() | st.integers(1, 9)), max_size=25
)


def made(number: int, average: int | None, kind: str, limit: int | None) -> Standing:
    facts: dict[str, Any] = {"model_type": kind, "document_limit": limit, "parameters": limit and limit * 10**9}
    return row(number, None if average is None else float(average), **facts)


@settings(deadline=None, max_examples=50)
@given(some_rows, some_rows, st.sets(st.integers(1, 8)))
def test_a_changed_table_is_one_made_anew(before: list[Any], after: list[Any], gone: set[int]) -> None:
    first = {facts[0]: made(*facts) for facts in before}
    changes: dict[int, Standing | None] = {facts[0]: made(*facts) for facts in after} | dict.fromkeys(gone)
    table = Table(DEMO, first.values())
    queries = (
        "",
        "sort=average&order=down",
        "sort=parameters",
        "type=chat",
        "min=2",
        "hide=merged",
        "q=m1;m2",
        "q=^acme/m[1-4]$;@type:chat m",
    )
    for query in queries:
        ask(table, query)  # orders that exist are kept up to date
    changed = table.changed(changes)
    anew = Table(DEMO, [one for one in (first | changes).values() if one is not None])
    assert changed.newest == anew.newest
    for query in queries:
        old, new = ask(changed, query), ask(anew, query)
        assert [(one.rank, one.tie) for one in old.lines] == [(one.rank, one.tie) for one in new.lines]
        assert sorted(numbers(old)) == sorted(numbers(new))
        assert (old.fitting, old.apart_fitting) == (new.fitting, new.apart_fitting)
        assert [line.row for line in old.apart] == [line.row for line in new.apart]
        # A kind that no row is of any more is counted as none.
        assert {name: many for name, many in old.counts.type.items() if many} == {
            name: many for name, many in new.counts.type.items() if many
        }
    assert sorted(numbers(ask(table))) == sorted(
        one.evaluation for one in first.values() if one.document_limit is None and one.average is not None
    )
