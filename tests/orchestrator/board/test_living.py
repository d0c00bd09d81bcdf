"""A board in memory is what the database says, whatever happened since it was read, and for whoever reads it."""

import gc
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlmodel import Session, col, delete, select

from orchestrator import db
from orchestrator.board import Boards, read_board
from orchestrator.board.keeping import freshen, start_keeper
from orchestrator.board.living import GAP_SECONDS, KEPT_SECONDS, MOST_BY_READERS, MOST_TABLES, MOST_WAITING
from orchestrator.errors import NotFound, NotYet, Refused
from orchestrator.flags import flag, lift, list_flags
from orchestrator.lifecycle import EvaluationState
from orchestrator.people import Visibility
from orchestrator.suite_versions import show
from orchestrator.tables import Evaluation, Event, Submission, SuiteVersion
from orchestrator.tables.flags import FlagKind
from orchestrator.visibility import PUBLIC, Audience, restrict, visible
from tests.orchestrator.board.rows import DEMO, NOON, WHOLE, ask, numbers
from tests.services import wait_until
from tests.submissions.factories import add_evaluation


def read(engine: Engine, boards: Boards, *, audience: Audience | None = None, at: datetime | None = None) -> list[int]:
    with db.session(engine, read_only=True) as session:
        if audience is not None:
            restrict(session, audience)
        return numbers(ask(boards.read(session, DEMO, at=at)))


def test_a_result_appears_and_what_is_no_longer_finished_goes(engine: Engine) -> None:
    boards = Boards()
    with db.session(engine) as session:
        first = add_evaluation(session, DEMO, values=WHOLE).id
    assert read(engine, boards) == [first]
    with db.session(engine) as session:
        second = add_evaluation(session, DEMO, model="acme/better", values={**WHOLE, "Sums": 90.0}).id
        waiting = add_evaluation(session, DEMO, model="acme/waits", values={}, state=EvaluationState.RUNNING).id
    assert read(engine, boards) == [second, first]
    with db.session(engine) as session:
        _note(session, first, state=EvaluationState.SCORING)
    assert read(engine, boards) == [second]
    assert waiting is not None
    with db.session(engine, read_only=True) as session:
        assert [row.evaluation for row in read_board(session, DEMO).ranked] == [second]


def test_a_page_without_news_reads_no_row_of_a_score(engine: Engine) -> None:
    boards = Boards()
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE)
    read(engine, boards)
    said: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    read(engine, boards)
    assert [text for text in said if "score" in text or "submission" in text] == []
    assert any("event" in text for text in said)


# SQLite's writers wait for each other, so there are no gaps.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_an_event_that_commits_after_a_later_one_is_not_missed(engine: Engine) -> None:
    clock = [0.0]
    boards = Boards(clock=lambda: clock[0])
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE)
    read(engine, boards)
    with db.session(engine) as session:
        late = add_evaluation(session, DEMO, model="acme/late", values=WHOLE)
        own = select(Event).where(Event.evaluation_id == late.id)
        held = [(one.id, one.at, one.name) for one in session.exec(own).all()]
        # The transaction of these is still under way, as far as a reader of PostgreSQL can tell.
        session.exec(delete(Event).where(col(Event.evaluation_id) == late.id))
        add_evaluation(session, DEMO, model="acme/next", values={**WHOLE, "Sums": 10.0})
        newest = max(one for one in session.exec(select(Event.id)).all() if one is not None)
        assert any(newest > (number or 0) for number, _, _ in held)
    assert len(read(engine, boards)) == 2
    clock[0] = GAP_SECONDS - 1
    with db.session(engine) as session:
        session.add_all(Event(id=number, at=at, evaluation_id=late.id, name=name) for number, at, name in held)
    assert len(read(engine, boards)) == 3


def test_each_audience_has_the_board_that_its_queries_would_make(engine: Engine) -> None:
    boards = Boards()
    audiences = [None, PUBLIC, Audience(person=7), Audience(person=9, teams=frozenset({"red"})), Audience(person=8)]
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE)
        add_evaluation(session, DEMO, model="acme/own", values=WHOLE, visibility=Visibility.PRIVATE, person_id=7)
        team = {"visibility": Visibility.TEAM, "person_id": 8, "team": "red"}
        changing = add_evaluation(session, DEMO, model="acme/team", values=WHOLE, **team)
    for expected in ([3, 1, 2, 2, 2], [3, 2, 3, 2, 2]):
        assert [len(read(engine, boards, audience=audience)) for audience in audiences] == expected
        for audience in audiences[1:]:
            assert audience is not None
            with db.session(engine, read_only=True) as session:
                seen = session.exec(select(Submission.id).where(visible(Submission, audience))).all()
            assert len(seen) == len(read(engine, boards, audience=audience))
        with db.session(engine) as session:
            submission = session.get_one(Submission, changing.submission_id)
            submission.visibility = Visibility.PUBLIC
            _note(session, changing.id)


def test_the_board_of_a_moment_stays_as_it_was(engine: Engine) -> None:
    boards = Boards()
    with db.session(engine) as session:
        first = add_evaluation(session, DEMO, values=WHOLE).id
    with db.session(engine, read_only=True) as session:
        then = boards.read(session, DEMO).newest
    with db.session(engine) as session:
        later = NOON.replace(day=5)
        add_evaluation(session, DEMO, model="acme/later", values={**WHOLE, "Sums": 90.0}, at=later)
    assert read(engine, boards, at=then) == [first]
    assert len(read(engine, boards)) == 2


def test_a_flag_is_on_the_rows_in_the_history_and_taken_back_with_a_reason(engine: Engine) -> None:
    boards, now = Boards(), datetime.now(UTC)
    with db.session(engine) as session:
        made = add_evaluation(session, DEMO, model="acme/flagged", values=WHOLE)
        add_evaluation(session, DEMO, model="acme/other", values=WHOLE)
    read(engine, boards)
    with db.session(engine) as session:
        put = flag(
            session,
            "acme/flagged",
            kind=FlagKind.CONTAMINATION,
            reason="It has seen Sums.",
            link="https://example.org/1",
            by="ann",
            now=now,
        )
    with db.session(engine, read_only=True) as session:
        shown = ask(boards.read(session, DEMO), "q=@flag:contamination")
        assert [(each.kind, each.reason) for each in shown.lines[0].row.flags] == [
            ("contamination", "It has seen Sums.")
        ]
        assert ask(boards.read(session, DEMO), "hide=flagged").fitting == 1
        own = select(Event).where(Event.evaluation_id == made.id, Event.name == "evaluation_flagged")
        assert session.exec(own).one().details["link"] == "https://example.org/1"
    with db.session(engine) as session:
        with pytest.raises(Refused, match="why"):
            lift(session, put.id or 0, reason=" ", now=now)
        lift(session, put.id or 0, reason="A mistake.", by="bob", now=now)
        with pytest.raises(NotFound, match="no flag"):
            lift(session, put.id or 0, reason="Again.", now=now)
    with db.session(engine, read_only=True) as session:
        assert ask(boards.read(session, DEMO), "hide=flagged").fitting == 2
        assert [each.lifted_because for each in list_flags(session)] == ["A mistake."]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"model": "acme/none"}, "Nobody has submitted"),
        ({"revision": "fff"}, "no revision"),
        ({"reason": " "}, "needs a reason"),
        ({"link": "javascript:alert(1)"}, "no web address"),
    ],
)
def test_a_flag_names_what_is_there_with_a_reason(engine: Engine, given: dict[str, str], sentence: str) -> None:
    with db.session(engine) as session:
        add_evaluation(session, DEMO, model="acme/model", values=WHOLE, revision="0" * 40)
        asked = {"model": "acme/model", "reason": "Because.", "kind": FlagKind.OTHER} | given
        with pytest.raises((NotFound, Refused), match=sentence):
            flag(session, asked.pop("model"), now=NOON, **asked)  # type: ignore[arg-type]


def _note(session: Session, evaluation: int | None, **changes: object) -> None:
    """What every change of an evaluation does: the row and an event in one transaction."""
    row = session.get_one(Evaluation, evaluation)
    for name, value in changes.items():
        setattr(row, name, value)
    session.add(Event(at=NOON, evaluation_id=evaluation, name="evaluation_moved", details={}))
    session.flush()


def test_moments_that_somebody_makes_up_drive_out_no_audiences_table(engine: Engine) -> None:
    boards = Boards()
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE)
        add_evaluation(session, DEMO, model="acme/hidden", values=WHOLE, visibility=Visibility.PRIVATE)
    with db.session(engine, read_only=True) as session:
        restrict(session, PUBLIC)
        table = boards.read(session, DEMO)
        for second in range(MOST_TABLES + 6):
            boards.read(session, DEMO, at=NOON + timedelta(days=1, seconds=second))
        assert boards.read(session, DEMO) is table


def test_a_reader_who_may_see_no_row_sees_none_and_not_all(engine: Engine) -> None:
    boards = Boards()
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE, visibility=Visibility.PRIVATE, person_id=7)
    for _ in range(2):
        assert read(engine, boards, audience=PUBLIC) == []
        assert len(read(engine, boards)) == 1


def test_few_changes_are_seen_at_once_and_many_when_the_keeper_has_taken_them_in(engine: Engine) -> None:
    boards = Boards()
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE)
    assert len(read(engine, boards)) == 1
    boards.is_kept = True
    with db.session(engine) as session:
        add_evaluation(session, DEMO, model="acme/second", values=WHOLE)
    assert len(read(engine, boards)) == 2
    assert not boards.wanted.is_set()
    with db.session(engine) as session:
        for number in range(MOST_BY_READERS + 1):
            add_evaluation(session, DEMO, model=f"acme/many-{number}", values=WHOLE)
    assert len(read(engine, boards)) == 2
    assert boards.wanted.is_set()
    freshen(boards, engine, {})
    assert len(read(engine, boards)) == MOST_BY_READERS + 3


def test_a_keeper_reads_the_shown_board_of_every_suite_before_anybody_asks(engine: Engine) -> None:
    boards = Boards()
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE)
    freshen(boards, engine, {DEMO.name: DEMO})
    said: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    assert len(read(engine, boards)) == 1
    assert len([text for text in said if "SELECT" in text]) == 1


def test_a_board_that_the_keeper_has_not_read_yet_is_told_of_and_left_to_it(engine: Engine) -> None:
    boards = Boards()
    boards.is_kept = True
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE)
    with db.session(engine, read_only=True) as session, pytest.raises(NotYet, match="Ask again in a few seconds"):
        boards.read(session, DEMO, patience=0.0)
    assert boards.wanted.is_set()
    freshen(boards, engine, {})
    assert len(read(engine, boards)) == 1


def test_a_board_that_cannot_be_read_keeps_no_other_from_its_readers(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    boards = Boards()
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE)

    def break_one(*given: Any) -> None:
        if "submission" in given[2] and "broken" in str(given[3]):
            raise RuntimeError("a fault of ours")

    event.listen(engine, "before_cursor_execute", break_one)
    freshen(boards, engine, {"broken": DEMO.model_copy(update={"name": "broken"}), DEMO.name: DEMO})
    boards.is_kept = True
    assert len(read(engine, boards)) == 1
    assert "boards_failed suite=broken" in caplog.text


def test_a_shown_version_that_is_no_suite_any_more_keeps_no_other_board_from_its_readers(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    boards = Boards()
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE)
        record = DEMO.model_dump(mode="json") | {"harness": "what an older Evalyard took"}
        session.add(SuiteVersion(suite="old", version="0", digest="", record=record, added_at=NOON))
        show(session, "old", "0", by="test", now=NOON)
    freshen(boards, engine, {"old": DEMO.model_copy(update={"name": "old"}), DEMO.name: DEMO})
    boards.is_kept = True
    assert len(read(engine, boards)) == 1
    assert "boards_failed suite=old" in caplog.text


# SQLite goes on after any error.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_board_that_the_database_refuses_to_read_keeps_no_other_from_its_readers(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    boards = Boards()
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE)

    def break_one(*given: Any) -> tuple[Any, Any]:
        is_it = "submission" in given[2] and "broken" in str(given[3])
        return ("SELECT 1 / 0", {}) if is_it else (given[2], given[3])

    event.listen(engine, "before_cursor_execute", break_one, retval=True)
    freshen(boards, engine, {"broken": DEMO.model_copy(update={"name": "broken"}), DEMO.name: DEMO})
    boards.is_kept = True
    assert len(read(engine, boards)) == 1
    assert "boards_failed suite=broken" in caplog.text


def test_however_many_wait_for_a_board_its_keeper_gets_a_connection_to_read_it(engine: Engine) -> None:
    boards = Boards()
    boards.is_kept = True
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE)
    seen, refused = list[int](), list[str]()

    def read_once() -> None:
        with db.session(engine, read_only=True) as session:
            session.connection()  # as a request has, which asked which suite to show
            try:
                seen.append(len(boards.read(session, DEMO, patience=20.0)))
            except NotYet as error:
                refused.append(error.sentence)

    readers = [threading.Thread(target=read_once) for _ in range(MOST_WAITING + 12)]
    for reader in readers:
        reader.start()
    wait_until(lambda: len(refused) == 12, "those who are too many are told at once")
    freshen(boards, engine, {})
    for reader in readers:
        reader.join()
    assert seen == [1] * MOST_WAITING


def test_a_board_that_is_kept_is_left_out_of_collections_of_garbage(engine: Engine) -> None:
    boards, stopping = Boards(), threading.Event()
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE)
    before = gc.get_freeze_count()
    keeper = start_keeper(boards, engine, {DEMO.name: DEMO}, stopping=stopping)
    try:
        wait_until(lambda: gc.get_freeze_count() > before, "the board is left out")
        assert len(read(engine, boards)) == 1
    finally:
        stopping.set()
        boards.wanted.set()
        keeper.join()
        gc.unfreeze()
    assert gc.isenabled()


def test_a_reader_is_shown_the_board_as_it_was_while_another_takes_changes_in(engine: Engine) -> None:
    boards = Boards()
    with db.session(engine) as session:
        add_evaluation(session, DEMO, values=WHOLE)
    assert len(read(engine, boards)) == 1
    boards.is_kept = True
    with db.session(engine) as session:
        add_evaluation(session, DEMO, model="acme/second", values=WHOLE)
    during: list[int] = []

    def ask_meanwhile(*given: object) -> None:
        if "score" in str(given[2]) and not during:
            during.append(0)
            during[0] = len(read(engine, boards))

    event.listen(engine, "before_cursor_execute", ask_meanwhile)
    assert len(read(engine, boards)) == 2
    assert during == [1]


def test_counts_are_kept_for_some_seconds_where_a_keeper_runs_and_otherwise_until_something_happens(
    engine: Engine,
) -> None:
    clock = [0.0]
    boards = Boards(clock=lambda: clock[0])
    made: list[int] = []

    def make() -> int:
        made.append(0)
        return len(made)

    def count() -> int:
        with db.session(engine) as session:
            add_evaluation(session, DEMO, model=f"acme/{len(made)}", values=WHOLE)
        with db.session(engine, read_only=True) as session:
            return boards.remembered(session, "count", make)

    assert [count(), count()] == [1, 2]
    boards.is_kept = True
    assert [count(), count()] == [2, 2]
    clock[0] = KEPT_SECONDS
    assert count() == 3
