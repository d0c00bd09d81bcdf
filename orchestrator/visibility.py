"""Who may see what: a session narrowed to one reader's audience.

This is the one place that decides it. Every query of such a session, whoever wrote it, leaves out what the reader may
not see, so that no page, export or count has to think of it, and none can forget to.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, event, inspect, or_, select, true
from sqlalchemy.orm import ORMExecuteState, with_loader_criteria
from sqlmodel import Session, SQLModel, col

from orchestrator.people import Visibility
from orchestrator.tables import Evaluation, Event, Flag, Job, Score, SeriesPoint, Submission


@dataclass(frozen=True)
class Audience:
    """What a reader may see: all of it, or what is public, their own and their teams'."""

    everything: bool = False
    person: int | None = None
    teams: frozenset[str] = frozenset()

    def sees(self, visibility: Visibility, *, team: str | None, person: int | None) -> bool:
        """`visible` for a submission that is at hand: what is kept in memory is narrowed by it."""
        if self.everything or visibility is Visibility.PUBLIC:
            return True
        if self.person is not None and person == self.person:
            return True
        return visibility is Visibility.TEAM and team in self.teams


EVERYTHING = Audience(everything=True)
PUBLIC = Audience()
UNRESTRICTED = "evalyard_unrestricted"
AUDIENCE = "evalyard_audience"


def restrict(session: Session, audience: Audience) -> None:
    """Leave out of every query of this session what the audience may not see, for as long as the session lives.

    It covers `Submission`, `Evaluation` and what hangs on them (`Job`, `Score`, `Event`, `SeriesPoint`, `Flag`) in
    every ORM statement, joined, aliased or in a subquery, and `session.get`. Statements on bare tables or in text are
    not covered: write none that names a model.
    """
    session.info[AUDIENCE] = audience
    if audience.everything:
        return
    options = [with_loader_criteria(kind, rule, include_aliases=True) for kind, rule in _rules(audience)]

    def narrow(state: ORMExecuteState) -> None:
        if state.is_select and not state.is_column_load and not session.info.get(UNRESTRICTED):
            state.statement = state.statement.options(*options)

    event.listen(session, "do_orm_execute", narrow)


def audience_of(session: Session) -> Audience:
    """Whom the session was narrowed to; one that never was sees everything."""
    found = session.info.get(AUDIENCE, EVERYTHING)
    assert isinstance(found, Audience)
    return found


@contextmanager
def unrestricted(session: Session) -> Iterator[None]:
    """Let the queries within see everything: for counts and places in the queue, which name nobody's model."""
    before = session.info.get(UNRESTRICTED, False)
    session.info[UNRESTRICTED] = True
    try:
        yield
    finally:
        session.info[UNRESTRICTED] = before


def visible(submission: Any, audience: Audience) -> ColumnElement[bool]:
    """Which submissions an audience may see; `submission` has the table's columns: the class, or a table's `c`."""
    if audience.everything:
        return true()
    shown = [submission.visibility == Visibility.PUBLIC]
    if audience.person is not None:
        shown.append(submission.person_id == audience.person)
    if audience.teams:
        shown.append(and_(submission.visibility == Visibility.TEAM, submission.team.in_(sorted(audience.teams))))
    return or_(*shown)


def _rules(audience: Audience) -> list[tuple[type[SQLModel], ColumnElement[bool]]]:
    """The condition on each table's rows; the tables within are bare, so that no rule is applied inside another."""
    submissions, evaluations = inspect(Submission).local_table.c, inspect(Evaluation).local_table.c
    seen = select(submissions.id).where(visible(submissions, audience))
    named = select(submissions.model).where(visible(submissions, audience))
    pinned = select(submissions.revision).where(visible(submissions, audience))
    theirs = select(evaluations.id).where(evaluations.submission_id.in_(seen))
    hanging: list[tuple[type[SQLModel], ColumnElement[bool]]] = [
        (kind, col(kind.evaluation_id).in_(theirs)) for kind in (Job, Score, Event, SeriesPoint)
    ]
    return [
        (Submission, visible(Submission, audience)),
        (Evaluation, col(Evaluation.submission_id).in_(seen)),
        *hanging,
        # One on a single commit tells that commit, and why it was looked at: for those who see what was made of it.
        (Flag, and_(col(Flag.model).in_(named), or_(col(Flag.revision).is_(None), col(Flag.revision).in_(pinned)))),
    ]
