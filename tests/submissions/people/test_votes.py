"""Votes: one for each person and revision, and what they move in the queue."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from orchestrator import db, votes
from orchestrator.errors import WrongState
from orchestrator.lifecycle import EvaluationState
from orchestrator.scheduling.turns import APART, MOST_VOTES, VOTE
from orchestrator.suites import load_suites
from orchestrator.tables import Event, Job, Person, Vote
from submissions.context import Hub
from tests.submissions.conftest import problem
from tests.submissions.factories import NOON, add_evaluation
from tests.submissions.people.conftest import SignIn
from tests.submissions.people.test_visibility import fill


def waiting(session: Session, **facts: object) -> int:
    suite = load_suites(None)["demo"]
    number = add_evaluation(session, suite, state=EvaluationState.QUEUED, at=NOON, **facts).id  # type: ignore[arg-type]
    assert number is not None
    return number


def turns_of(session: Session, evaluation: int) -> set[datetime]:
    return {turn for turn in session.exec(select(Job.turn_at).where(Job.evaluation_id == evaluation)) if turn}


def add_people(session: Session, count: int) -> list[int]:
    people = [Person(issuer="x", subject=str(number), name="x", made_at=NOON, seen_at=NOON) for number in range(count)]
    session.add_all(people)
    session.flush()
    return [person.id or 0 for person in people]


def test_each_vote_is_an_hour_up_to_the_most_and_taken_back_it_is_undone(engine: Engine) -> None:
    now = datetime.now(UTC)
    with db.session(engine) as session:
        people = add_people(session, MOST_VOTES + 2)
        number, other = waiting(session), waiting(session, model="acme/other")
        (before,), (others,) = turns_of(session, number), turns_of(session, other)
        for person in people:
            votes.cast(session, number, person, now=now)
        assert turns_of(session, number) == {before - MOST_VOTES * VOTE}
        assert votes.withdraw(session, number, people[0], now=now) == MOST_VOTES + 1
        assert turns_of(session, number) == {before - MOST_VOTES * VOTE}
        for person in people[1:]:
            votes.withdraw(session, number, person, now=now)
        assert turns_of(session, number) == {before}
        assert turns_of(session, other) == {others}


def test_a_second_vote_of_the_same_person_counts_nothing(engine: Engine) -> None:
    with db.session(engine) as session:
        (person,) = add_people(session, 1)
        number = waiting(session)
        (before,) = turns_of(session, number)
        assert [votes.cast(session, number, person, now=NOON) for _ in range(3)] == [1, 1, 1]
        assert turns_of(session, number) == {before - timedelta(hours=1)}
        names = session.exec(select(Event.name).where(Event.evaluation_id == number)).all()
        assert names.count(votes.EVALUATION_VOTED) == 1


def test_a_vote_is_for_the_revision_whatever_it_is_evaluated_as(engine: Engine) -> None:
    with db.session(engine) as session:
        (person,) = add_people(session, 1)
        one, two = waiting(session, revision="r"), waiting(session, revision="r", chat_template=True)
        before = turns_of(session, one) | turns_of(session, two)
        votes.cast(session, one, person, now=NOON)
        assert turns_of(session, one) | turns_of(session, two) == {turn - VOTE for turn in before}


def test_what_is_submitted_later_counts_the_votes_that_are_there(engine: Engine) -> None:
    with db.session(engine) as session:
        (person,) = add_people(session, 1)
        votes.cast(session, waiting(session, revision="r", submitter="ann"), person, now=NOON)
        voted = waiting(session, revision="r", chat_template=True, submitter="bob")
        other = waiting(session, revision="s", submitter="cid")
        assert turns_of(session, voted) == {turn - VOTE for turn in turns_of(session, other)}


def test_a_persons_fair_share_follows_them_through_every_name(engine: Engine) -> None:
    with db.session(engine) as session:
        ann, bob = add_people(session, 2)
        waiting(session, submitter="ann", person_id=ann)
        renamed = waiting(session, submitter="ANN", person_id=ann)
        namesake = waiting(session, submitter="ann", person_id=bob)
        assert turns_of(session, renamed) == {turn + APART for turn in turns_of(session, namesake)}


def test_what_has_ended_takes_no_vote(engine: Engine) -> None:
    with db.session(engine) as session:
        (person,) = add_people(session, 1)
        number = add_evaluation(session, load_suites(None)["demo"], state=EvaluationState.CANCELLED).id or 0
        with pytest.raises(WrongState, match="already cancelled"):
            votes.cast(session, number, person, now=NOON)


def test_people_vote_for_what_they_may_see(sign_in: SignIn, hub: Hub) -> None:
    ada, eve = sign_in("ada"), sign_in("eve")
    numbers = fill(hub, ada.get("/api/v1/account").json()["person"])
    with hub.writing() as session:
        public = waiting(session, model="acme/waits")
    problem(eve.client.put(f"/api/v1/evaluations/{numbers['running']}/vote", headers={"origin": ORIGIN}), 404)
    path = f"/api/v1/evaluations/{public}/vote"
    for person in (ada, eve, eve):
        answer = person.client.put(path, headers={"origin": ORIGIN})
    assert answer.json() == {"message": f"Evaluation {public} has 2 votes.", "votes": 2}
    assert "2 votes for this revision" in eve.get(f"/evaluations/{public}").text
    assert eve.post(f"/evaluations/{public}/vote").status_code == 303
    assert eve.get(f"/api/v1/evaluations/{public}").json()["votes"] == 1
    with hub.reading() as session:
        assert len(session.exec(select(Vote)).all()) == 1


ORIGIN = "http://127.0.0.1:8765"
