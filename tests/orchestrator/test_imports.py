"""Imported rows in the tables of either database: once each, replaced, taken back, and back again."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine
from sqlmodel import select

from orchestrator import db
from orchestrator.board.reading import read_board
from orchestrator.exchange.reading import public_provenance
from orchestrator.exchange.row import Row
from orchestrator.results import imports
from orchestrator.suites import load_suites
from orchestrator.tables import Event, Job, Score, Source

DEMO = load_suites()["demo"]
NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
VALUES = {"Letters": 80.0, "Stories": 60.0, "Sums": 40.0}


def row(model: str = "acme/m", **facts: Any) -> Row:
    scores = [{"benchmark": name, "metric": "value", "value": value, "stderr": 1.5} for name, value in VALUES.items()]
    given = {"evaluation": 7, "model": model, "revision": "a" * 40, "precision": "bfloat16", "engine": "vllm"}
    return Row.model_validate(given | {"average": 60.0, "scores": scores} | facts)


def take(engine: Engine, *rows: Row, address: str = "hf://datasets/acme/board") -> list[str]:
    with db.session(engine) as session:
        source = imports.open_source(session, address, layout="evalyard", now=NOW)
        taken = [str(imports.take_row(session, source, DEMO, one, revision="c" * 40, now=NOW)) for one in rows]
        kept = {imports.row_key(source, DEMO, one) for one in rows}
        return [*taken, *imports.take_back(session, source, kept=kept, now=NOW)]


def ranked(engine: Engine) -> list[tuple[str, float | None, str]]:
    with db.session(engine, read_only=True) as session:
        board = read_board(session, DEMO)
    return [(found.model, found.average, found.imported_from) for found in board.ranked]


def test_a_row_is_there_once_and_follows_its_source(engine: Engine) -> None:
    origin = "hf://datasets/acme/board"
    assert take(engine, row(), row("acme/n")) == ["added", "added"]
    assert take(engine, row(), row("acme/n")) == ["unchanged", "unchanged"]
    assert take(engine, row(licence="mit"), row("acme/n")) == ["changed", "unchanged"]
    assert take(engine, row("acme/n")) == ["unchanged", "acme/m"]
    assert ranked(engine) == [("acme/n", 60.0, origin)]
    assert take(engine, row(licence="mit"), row("acme/n")) == ["changed", "unchanged"]
    assert ranked(engine) == [("acme/m", 60.0, origin), ("acme/n", 60.0, origin)]
    with db.session(engine, read_only=True) as session:
        assert len(session.exec(select(Score)).all()) == 6
        assert {job.state.value for job in session.exec(select(Job))} == {"completed"}
        names = [event.name for event in session.exec(select(Event))]
    assert (names.count("evaluation_imported"), names.count("evaluation_moved")) == (4, 1)


def test_the_same_row_of_two_sources_stands_twice_and_each_source_takes_back_its_own(engine: Engine) -> None:
    take(engine, row())
    take(engine, row(), address="/srv/boards/theirs")
    assert [source for *_, source in ranked(engine)] == ["hf://datasets/acme/board", "theirs"]
    assert take(engine, address="/srv/boards/theirs") == ["acme/m"]
    assert [source for *_, source in ranked(engine)] == ["hf://datasets/acme/board"]
    with db.session(engine, read_only=True) as session:
        assert len(session.exec(select(Source)).all()) == 2


def test_a_row_that_lacks_a_benchmark_has_a_failed_one_with_its_reason(engine: Engine) -> None:
    lacking = [{"benchmark": "Sums", "kind": "invalid_output", "sentence": "It was a broken run."}]
    scores = [{"benchmark": "Letters", "metric": "value", "value": 5.0}]
    take(engine, row(average=None, scores=scores, missing=lacking))
    with db.session(engine, read_only=True) as session:
        (apart,) = read_board(session, DEMO).apart
        failed = {job.benchmark: job.sentence for job in session.exec(select(Job)) if job.failure}
    assert apart.apart_because == "No score for Stories, Sums, so there is no average."
    assert failed == {"Sums": "It was a broken run.", "Stories": "Its source has no score of it."}


def test_no_provenance_of_a_stranger_keeps_a_board_from_being_read(engine: Engine) -> None:
    """PostgreSQL takes such JSON, and fails at whatever looks into it: the whole board's costs."""
    named = {"zero\x00": "a\x00b", "half": ["\ud800"], "\udc00": 1}
    told = {"identity": named, "infer": {"cost": {"device_seconds": 3600.0}}}
    take(engine, row(licence="mit", provenance={"Letters": public_provenance(told)}))
    with db.session(engine, read_only=True) as session:
        (found,) = read_board(session, DEMO).ranked
    assert (found.licence, found.device_seconds) == ("mit", 3600.0)
