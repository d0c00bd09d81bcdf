"""The board ranks what can be compared, and says of every other row why it is apart."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from orchestrator import db
from orchestrator.board import Board, Cell, rank_rows, read_board
from orchestrator.lifecycle import EvaluationState
from orchestrator.suites import load_suites
from tests.orchestrator.board.rows import WHOLE, row
from tests.submissions.factories import add_evaluation

SUITES = load_suites()
DEMO = SUITES["demo"]
V1 = SUITES["open-llm-v1"]


def order(board: Board) -> list[tuple[int | None, int]]:
    return [(standing.rank, standing.evaluation) for standing in board.ranked]


def test_rows_are_ranked_by_average_and_equal_ones_share_a_rank() -> None:
    board = rank_rows(DEMO, [row(1, 50.0), row(2, 70.0), row(3, 50.0), row(4, 20.0)])
    assert order(board) == [(1, 2), (2, 1), (2, 3), (4, 4)]


@pytest.mark.parametrize(
    ("facts", "because"),
    [
        (
            {"engine": "scripted"},
            "Its answers are made up by the scripted engine, the test double: no model gave them.",
        ),
        ({"document_limit": 5}, "A trial: at most 5 documents of each task."),
        ({"suite_version": "0"}, "Made under version 0 of the suite; this board shows version 1."),
        ({"cells": {"Letters": Cell(1.0)}, "average": None}, "No score for Stories, Sums, so there is no average."),
        ({"average": None}, "There is no average."),
        ({"average": math.nan}, "There is no average."),
    ],
)
def test_what_cannot_be_compared_is_listed_apart_with_the_reason(facts: dict[str, Any], because: str) -> None:
    board = rank_rows(DEMO, [row(1, **({"average": 99.0} | facts))])
    assert board.ranked == ()
    assert [(standing.rank, standing.apart_because) for standing in board.apart] == [(None, because)]


@given(st.lists(st.tuples(st.none() | st.floats(0, 100), st.none() | st.integers(1, 9)), max_size=12), st.randoms())
def test_ranking_loses_no_row_and_does_not_depend_on_their_order(rows: list[tuple[Any, Any]], random: Any) -> None:
    standings = [row(number, average, document_limit=limit) for number, (average, limit) in enumerate(rows)]
    board = rank_rows(DEMO, standings)
    shuffled = list(standings)
    random.shuffle(shuffled)
    assert rank_rows(DEMO, shuffled) == board
    assert {standing.evaluation for standing in (*board.ranked, *board.apart)} == set(range(len(rows)))
    averages = [standing.average for standing in board.ranked]
    assert averages == sorted(averages, key=lambda average: -(average or 0))
    for standing in board.ranked:
        better = sum(1 for other in board.ranked if (other.average or 0) > (standing.average or 0))
        assert standing.rank == better + 1


def test_the_published_rows_of_v1_keep_their_order_and_averages(engine: Engine) -> None:
    names = [benchmark.name for benchmark in V1.benchmarks]
    published = {
        "mistralai/Mistral-7B-Instruct-v0.2": (65.71, [63.14, 84.88, 60.78, 68.26, 77.19, 40.03]),
        "01-ai/Yi-34B-Chat": (65.32, [65.44, 84.16, 74.9, 55.37, 80.11, 31.92]),
        "Qwen/Qwen1.5-14B-Chat": (62.37, [58.79, 82.33, 68.52, 60.38, 73.32, 30.86]),
        "01-ai/Yi-6B": (54.09, [55.55, 76.57, 64.11, 41.96, 74.19, 12.13]),
    }
    with db.session(engine) as session:
        for model, (_, values) in reversed(published.items()):
            add_evaluation(session, V1, model=model, values=dict(zip(names, values, strict=True)))
    with db.session(engine, read_only=True) as session:
        board = read_board(session, V1)
    assert [(found.model, round(found.average or 0, 2)) for found in board.ranked] == [
        (model, average) for model, (average, _) in published.items()
    ]


def test_only_finished_evaluations_of_the_suite_are_on_its_board(engine: Engine) -> None:
    with db.session(engine) as session:
        kept = add_evaluation(session, DEMO, values=WHOLE)
        add_evaluation(session, DEMO, model="acme/running", values=WHOLE, state=EvaluationState.RUNNING)
        add_evaluation(session, DEMO, model="acme/failed", state=EvaluationState.FAILED)
        add_evaluation(session, V1, model="acme/elsewhere", values={benchmark.name: 1.0 for benchmark in V1.benchmarks})
        gap = add_evaluation(session, DEMO, model="acme/gap", values={"Letters": 99.0})
    with db.session(engine, read_only=True) as session:
        board = read_board(session, DEMO)
    assert order(board) == [(1, kept.id)]
    assert [standing.evaluation for standing in board.apart] == [gap.id]
    cell = board.ranked[0].cells["Letters"]
    assert (cell.value, cell.raw, cell.stderr, cell.samples) == (80.0, 84.0, 1.0, 100)


def test_the_averages_error_takes_benchmarks_as_independent() -> None:
    cells = {"Letters": Cell(1.0, stderr=3.0), "Stories": Cell(1.0, stderr=4.0)}
    assert row(1, 50.0, cells=cells).average_stderr == pytest.approx(2.5)
    assert row(1, 50.0, cells=cells | {"Sums": Cell(1.0)}).average_stderr is None


def test_a_board_without_rows_is_empty(engine: Engine) -> None:
    with db.session(engine, read_only=True) as session:
        assert read_board(session, DEMO) == Board(DEMO)
