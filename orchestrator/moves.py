"""The writes of a job's moves: guarded UPDATEs of one row, by statements that are kept, and an event for each.

For `orchestrator.arrows`, which knows which moves there are; an evaluation's own events are noted here, too. Within
`orchestrator.together` writes wait; else each is made at once. No function here reads a row.
"""

import functools
from datetime import datetime
from typing import Any, Literal, cast

from sqlalchemy import ColumnElement, Table, Update, bindparam, insert, inspect, or_, update
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import Session

from orchestrator.lifecycle import ARROWS, JobState
from orchestrator.tables import Attempt, Event, Job
from orchestrator.together import waiting
from orchestrator.wire import FailureKind

_JOBS = cast(Table, inspect(Job).local_table)
_ATTEMPTS = cast(Table, inspect(Attempt).local_table)
_EVENTS = cast(Table, inspect(Event).local_table)
# Of tables and not of classes: an UPDATE of a class is put together anew each time, at many times the cost.


_END_ATTEMPT = (
    update(_ATTEMPTS)
    .where(_ATTEMPTS.c.id == bindparam("the_id"), _ATTEMPTS.c.outcome == "")
    .values({name: bindparam(name) for name in ("ended_at", "outcome", "failure", "sentence", "log_tail")})
)
NEW_ATTEMPT = insert(_ATTEMPTS)
_NEW_EVENT = insert(_EVENTS)


ANY: Any = object()


def move(
    session: Session, job: Job, sources: tuple[JobState, ...], values: dict[str, Any], *, attempt: str | None = ANY
) -> bool:
    """The guarded UPDATE: from one of `sources`, along an arrow of the life-cycle, or not at all.

    With `attempt` the job must be held by that one, or by none where it is None.
    """
    to: JobState = values["state"]
    assert all(to in ARROWS[source] for source in sources), f"no arrow leads from {sources} to {to}"
    statement = job_update(tuple(values), sources, "any" if attempt is ANY else "none" if attempt is None else "one")
    return change_job(session, statement, job, values, sources=sources, attempt=attempt)


def change_job(
    session: Session,
    statement: Update,
    job: Job,
    values: dict[str, Any],
    *,
    sources: tuple[JobState, ...],
    attempt: str | None,
) -> bool:
    """Run one of `job_update`'s statements; the row in memory is then as the UPDATE has left it."""
    keys: dict[str, Any] = {"the_id": job.id} if attempt is ANY or attempt is None else {
        "the_id": job.id, "the_attempt": attempt
    }  # fmt: skip
    if (later := waiting(session)) is not None:
        if not _is_as_guarded(job, sources, attempt=attempt):
            return False
        later.add(session, statement, keys | values, row=("job", job.id), is_guarded=True)
    elif session.connection().execute(statement, keys | values).rowcount != 1:
        return False
    for name, value in values.items():
        set_committed_value(job, name, value)
    return True


def _is_as_guarded(job: Job, sources: tuple[JobState, ...], *, attempt: str | None) -> bool:
    """What the statement's guard will find, by the row in memory, which is true while its evaluation is locked."""
    return job.state in sources and (attempt is ANY or job.attempt_id == attempt)


@functools.cache
def job_update(names: tuple[str, ...], sources: tuple[JobState, ...], held_by: Literal["any", "none", "one"]) -> Update:
    """The statement that sets these columns of one job, kept: to put it together takes longer than to run it."""
    # Not IN: its list is put in anew each time, and then one statement could not change many rows.
    states = or_(*(_JOBS.c.state == source for source in sources))
    guard = update(_JOBS).where(_JOBS.c.id == bindparam("the_id"), states)
    if held_by == "none":
        guard = guard.where(_JOBS.c.attempt_id.is_(None))
    if held_by == "one":
        guard = guard.where(_JOBS.c.attempt_id == bindparam("the_attempt"))
    return guard.values({name: bindparam(name) for name in names})


def end_lease(session: Session, attempt: str, *, now: datetime) -> bool:
    """Close the attempt unless a heartbeat has extended its lease in the meantime."""
    return _change(session, update(_ATTEMPTS).where(_open(attempt), _ATTEMPTS.c.lease_until < now).values(ended_at=now))


def end_attempt(
    session: Session,
    attempt: str,
    *,
    outcome: str,
    now: datetime,
    failure: FailureKind | None = None,
    sentence: str = "",
    log_tail: str = "",
) -> None:
    """Close the attempt; its end may have been written already by the guard on its lease."""
    values = {"ended_at": now, "outcome": outcome, "failure": failure, "sentence": sentence, "log_tail": log_tail}
    if (later := waiting(session)) is not None:
        later.add(session, _END_ATTEMPT, {"the_id": attempt} | values, row=("attempt", attempt))
    else:
        session.connection().execute(_END_ATTEMPT, {"the_id": attempt} | values)


def change_attempt(session: Session, attempt: str, values: dict[str, Any]) -> bool:
    """Change an open attempt; True as well where the change waits, as its job is held by it."""
    if (later := waiting(session)) is not None:
        later.add(session, _attempt_update(tuple(values)), {"the_id": attempt} | values, row=("attempt", attempt))
        return True
    return session.connection().execute(_attempt_update(tuple(values)), {"the_id": attempt} | values).rowcount == 1


@functools.cache
def _attempt_update(names: tuple[str, ...]) -> Update:
    """The statement that sets these columns of one open attempt, kept."""
    guard = update(_ATTEMPTS).where(_ATTEMPTS.c.id == bindparam("the_id"), _ATTEMPTS.c.ended_at.is_(None))
    return guard.values({name: bindparam(name) for name in names})


def _open(attempt: str) -> ColumnElement[bool]:
    return (_ATTEMPTS.c.id == attempt) & _ATTEMPTS.c.ended_at.is_(None)


def _change(session: Session, statement: Update) -> bool:
    """Run an UPDATE of at most one row, past the session's objects; whether it changed one."""
    return session.connection().execute(statement).rowcount == 1


def record(session: Session, name: str, now: datetime, *, job: Job, attempt: str | None = None, **details: Any) -> bool:
    """The event row of a move that was made; always True, so that a move can end with it."""
    told = {key: value for key, value in details.items() if value not in (None, "")}
    return note(session, name, now, evaluation=job.evaluation_id, job=job.id, attempt=attempt, details=told)


def note(
    session: Session,
    name: str,
    now: datetime,
    *,
    evaluation: int | None,
    details: dict[str, Any],
    job: int | None = None,
    attempt: str | None = None,
) -> bool:
    """Write an event of an evaluation, among those of the moves of its jobs; always True."""
    values: dict[str, Any] = {
        "at": now,
        "evaluation_id": evaluation,
        "job_id": job,
        "attempt_id": attempt,
        "name": name,
        "details": details,
    }
    if (later := waiting(session)) is not None:
        later.add(session, _NEW_EVENT, values)
    else:
        session.add(Event(**values))
    return True
