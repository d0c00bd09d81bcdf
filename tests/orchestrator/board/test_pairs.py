"""Ties of boards that are read from the database: paired where both rows' documents are kept, for whoever reads."""

import base64
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import col, select

from orchestrator import db
from orchestrator.board import Boards, Standing, read_board
from orchestrator.board.export import as_record
from orchestrator.board.keeping import freshen
from orchestrator.board.pairs import Comparing, Pairs
from orchestrator.board.ties import Tie, independent
from orchestrator.people import Visibility
from orchestrator.reruns.carrying import carry_scores, scores_of
from orchestrator.tables import Evaluation, Job, Outcome
from orchestrator.visibility import PUBLIC, Audience, restrict
from tests.orchestrator.board.rows import DEMO, NOON, ask
from tests.submissions.factories import add_evaluation

DOCUMENTS = 2000


def add(engine: Engine, right: int, *, kept: bool = True, stderr: float | None = 2.0, **facts: Any) -> int:
    """A row that had the first so many documents of each benchmark right."""
    value = 100 * right / DOCUMENTS
    bits = base64.b64encode(((1 << right) - 1).to_bytes(DOCUMENTS // 8, "little")).decode()
    with db.session(engine) as session:
        values = {one.name: value for one in DEMO.benchmarks}
        made = add_evaluation(session, DEMO, values=values, stderr=stderr, model=f"acme/right-{right}", **facts)
        assert made.id is not None
        for name in values if kept else ():
            strata = [{"documents": f"of {name}", "count": DOCUMENTS, "weight": 100.0, "bits": bits}]
            session.add(Outcome(evaluation_id=made.id, benchmark=name, strata=strata))
        return made.id


def ties(engine: Engine, boards: Boards, *, audience: Audience | None = None) -> dict[int, Tie | None]:
    with db.session(engine, read_only=True) as session:
        if audience is not None:
            restrict(session, audience)
        return {line.row.evaluation: line.tie for line in ask(boards.read(session, DEMO)).lines}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_rows_that_answered_the_same_documents_are_compared_by_them(engine: Engine) -> None:
    best, paired, alone = add(engine, 1000), add(engine, 990), add(engine, 980, kept=False)
    found = ties(engine, Boards())
    first, second, third = found[best], found[paired], found[alone]
    assert first is not None
    assert second is not None
    assert third is not None
    # Ten documents of 2,000 in each benchmark are clear where all others are alike; by errors of 2 nothing is.
    assert (first.first, first.last) == (1, 1)
    assert (second.first, second.last, second.difference) == (2, 3, None)
    assert third.difference is not None
    assert (third.best.evaluation, third.difference.documents) == (paired, 0)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_tie_says_over_how_many_documents_and_by_how_much(engine: Engine) -> None:
    best, other = add(engine, 1000), add(engine, 999)
    with db.session(engine, read_only=True) as session:
        lines = ask(Boards().read(session, DEMO)).lines
    record = as_record(lines[1])["tie"]
    assert record == {
        "first": 1,
        "last": 2,
        "best": best,
        "difference": pytest.approx(0.05),
        "stderr": pytest.approx(0.05 / 3**0.5),
        "paired_documents": 3 * DOCUMENTS,
    }
    assert as_record(lines[0])["tie"] == {"first": 1, "last": 2, "best": best}
    assert lines[1].row.evaluation == other


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_with_a_keeper_readers_wait_for_no_comparison(engine: Engine) -> None:
    boards = Boards()
    best, other = add(engine, 1000), add(engine, 990)
    with db.session(engine, read_only=True) as session:
        boards.is_kept = True
        boards.read(session, DEMO, take_in_all=True)
    guessed = ties(engine, boards)[best]
    freshen(boards, engine, {DEMO.name: DEMO})
    settled = ties(engine, boards)[best]
    assert guessed is not None
    assert settled is not None
    assert (guessed.last, settled.last) == (2, 1)
    third = add(engine, 991)
    assert [one.last for one in ties(engine, boards).values() if one] == [2, 2, 3]  # the new row is not compared yet
    freshen(boards, engine, {DEMO.name: DEMO})
    found = ties(engine, boards)
    assert [(one, tie.first, tie.last) for one, tie in found.items() if tie] == [
        (best, 1, 1),
        (third, 2, 3),
        (other, 2, 3),
    ]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_pair_that_another_thread_compares_meanwhile_is_compared_all_the_same(engine: Engine) -> None:
    for right in (1000, 990):
        add(engine, right)
    pairs = Pairs()
    with db.session(engine, read_only=True) as session:
        best, other = read_board(session, DEMO).ranked

        def follow(row: Standing, many: int) -> list[Standing]:
            pairs.learn(best, other, independent(best, other))
            return [row]

        assert Comparing(session, pairs, follow).compare(best, other).documents == 3 * DOCUMENTS


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_tie_names_no_row_that_its_reader_may_not_see(engine: Engine) -> None:
    hidden = add(engine, 1000, visibility=Visibility.PRIVATE)
    shown = add(engine, 999)
    boards = Boards()
    assert [tie.best.evaluation for tie in ties(engine, boards).values() if tie] == [hidden, hidden]
    seen = ties(engine, boards, audience=PUBLIC)
    tie = seen[shown]
    assert tie is not None
    assert (list(seen), tie.best.evaluation, tie.first, tie.last) == ([shown], shown, 1, 1)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_scores_that_are_carried_over_bring_what_each_document_came_to(engine: Engine) -> None:
    old, new = add(engine, 1000), add(engine, 10, kept=False)
    benchmark = DEMO.benchmarks[0]
    with db.session(engine) as session:
        rows = scores_of(session, old, benchmark.name)
        for row in scores_of(session, new, benchmark.name):
            session.delete(row)
        session.flush()
        job = session.exec(select(Job).where(Job.evaluation_id == new)).first()
        assert job is not None
        how: dict[str, Any] = {"before": benchmark, "evaluation": new, "job": job.id, "now": NOON}
        carry_scores(session, rows, after=benchmark, origin={"evaluation": old}, **how)
    with db.session(engine, read_only=True) as session:
        kept = session.exec(select(Outcome).where(col(Outcome.evaluation_id) == new)).all()
        assert [(one.benchmark, one.strata[0]["count"]) for one in kept] == [(benchmark.name, DOCUMENTS)]
        assert session.exec(select(Evaluation)).first() is not None
