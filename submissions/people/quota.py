"""How many new evaluations a person and a team may ask for in a day, counted in the database.

It counts people by their number and teams by their members, so that neither upper case nor another name of the same
person, model or team is another account.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select

from orchestrator.arrows import JOB_RETRIED
from orchestrator.people import Role, Scope
from orchestrator.settings import HubSettings
from orchestrator.tables import Event, Membership, Person, Submission
from submissions.people.refusals import TooMany
from submissions.people.viewer import Viewer

DAY = timedelta(hours=24)
MOST_RETRIES = 5
"""Of one evaluation in a day, by whom it belongs to."""


def check(session: Session, settings: HubSettings, viewer: Viewer, *, now: datetime) -> None:
    """That what this transaction has just recorded is within the limits; nothing limits operators.

    Raises:
        TooMany: it is not; the transaction must be undone.
    """
    if viewer.person is None or viewer.may(Role.OPERATOR, Scope.SUBMIT):
        return
    if settings.submissions_per_day:
        _lock(session, col(Person.id) == viewer.person)
        mine = [viewer.person]
        _refuse_beyond(session, mine, settings.submissions_per_day, whose="You have", now=now)
    for team in sorted(viewer.teams) if settings.team_submissions_per_day else ():
        members = session.exec(select(Membership.person_id).where(Membership.team == team)).all()
        _lock(session, col(Person.id).in_(members))
        _refuse_beyond(session, members, settings.team_submissions_per_day, whose=f"The team {team} has", now=now)


def check_retries(session: Session, viewer: Viewer, evaluation: int, *, now: datetime) -> None:
    """That an evaluation, which this transaction has just retried, was not so too often: each time it has fresh
    budgets. Nothing limits operators.

    Raises:
        TooMany: it was; the transaction must be undone.
    """
    if viewer.person is None or viewer.may(Role.OPERATOR, Scope.SUBMIT):
        return
    # All jobs of one retry are revived at one moment.
    moments = select(func.count(func.distinct(Event.at))).where(
        Event.evaluation_id == evaluation, Event.name == JOB_RETRIED, col(Event.at) > now - DAY
    )
    if session.exec(moments).one() > MOST_RETRIES:
        raise TooMany(
            f"Evaluation {evaluation} was retried {MOST_RETRIES} times within 24 hours. Find out what it fails of "
            "before the next time; an operator can retry it at once.",
            retry_after=int(DAY.total_seconds()),
        )


def _lock(session: Session, whom: ColumnElement[bool]) -> None:
    """Let those who come at the same moment follow each other."""
    session.exec(select(Person.id).where(whom).order_by(col(Person.id)).with_for_update()).all()


def _refuse_beyond(session: Session, people: Sequence[int], most: int, *, whose: str, now: datetime) -> None:
    recent = (col(Submission.person_id).in_(people), col(Submission.submitted_at) > now - DAY)
    if session.exec(select(func.count()).select_from(Submission).where(*recent)).one() <= most:
        return
    first = session.exec(select(Submission.submitted_at).where(*recent).order_by(col(Submission.submitted_at))).first()
    wait = max(1, int((first + DAY - now).total_seconds())) if first is not None else 60
    raise TooMany(
        f"{whose} asked for {most} new evaluations within 24 hours, which is the most here. "
        f"The next is possible in {wait // 3600} h {wait % 3600 // 60} min; operators can raise the limit.",
        retry_after=wait,
    )
