"""Notices and their deliveries in the database: noted once, spread over targets once, held by one sender at a time.

At least once: a sender that dies between sending and saying so is followed by another that sends again. Twice at the
same time never: each delivery is held by a guarded UPDATE.
"""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from sqlalchemy import ColumnElement, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from orchestrator.lifecycle import EvaluationState
from orchestrator.notices import events
from orchestrator.notices.events import Asker, Facts
from orchestrator.people import Visibility
from orchestrator.tables import Delivery, Evaluation, Notice, Person, Submission

HOLD = timedelta(minutes=2)
"""How long a sender has a delivery for itself."""
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(hours=1)
MOST_TRIES = 24
"""With these pauses, about 18 hours."""
STALE = timedelta(days=3)
"""What happened longer ago is told to nobody: a hub that gets its first target does not tell its history."""
MOST_SPREAD = 200
PREFIX = "person:"
"""Of the names of people's own targets; the notifications file can hold none that begins so."""
MOST_HELD = 50
"""Deliveries of a round; those to one target are one message."""


class Held(NamedTuple):
    """A delivery that this sender has for itself."""

    notice: int
    target: str
    tries: int
    facts: Facts


def note(
    session: Session,
    event: str,
    *,
    key: str,
    now: datetime,
    evaluation: int | None = None,
    rerun: int | None = None,
    **facts: Any,
) -> bool:
    """Note in this transaction that something is to be told; False when it was noted before."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    values = {"key": key, "event": event, "evaluation_id": evaluation, "rerun_id": rerun, "facts": facts, "at": now}
    session.flush()
    made = insert(Notice).values(**values).on_conflict_do_nothing().returning(col(Notice.id))
    return session.connection().execute(made).first() is not None


def keys_of(keys: Sequence[str]) -> SelectOfScalar[str]:
    """The query of which of these keys were noted."""
    return select(Notice.key).where(col(Notice.key).in_(keys))


def note_end(session: Session, evaluation: Evaluation, state: EvaluationState, *, now: datetime) -> None:
    """Note that an evaluation has finished or failed; what a person cancelled is told to nobody."""
    names = {
        EvaluationState.FINISHED: (events.EVALUATION_FINISHED, events.RERUN_EVALUATION_FINISHED),
        EvaluationState.FAILED: (events.EVALUATION_FAILED, events.RERUN_EVALUATION_FAILED),
    }.get(state)
    if names is not None:
        event = names[1] if evaluation.rerun_id is not None else names[0]
        key = f"evaluation:{evaluation.id}:{state}:{now.isoformat()}"
        note(session, event, key=key, evaluation=evaluation.id, rerun=evaluation.rerun_id, now=now)


def is_anything(session: Session, *, now: datetime) -> bool:
    """Whether a round would find anything to do; only reads."""
    new = session.exec(select(Notice.id).where(col(Notice.spread_at).is_(None)).limit(1)).first()
    due = select(Delivery.notice_id).where(Delivery.state == "pending", _is_due(now), _is_free(now)).limit(1)
    return new is not None or session.exec(due).first() is not None


class Recipient(Protocol):
    """A target of the notifications file, or a person's own."""

    @property
    def name(self) -> str: ...

    def wants(self, event: str, *, asker: Asker) -> bool: ...


def spread(session: Session, targets: Sequence[Recipient], *, now: datetime) -> int:
    """Decide of the new notices who is told; returns how many deliveries came of it."""
    if not targets:
        nobody = update(Notice).where(col(Notice.spread_at).is_(None)).values(spread_at=now)
        session.connection().execute(nobody)
        return 0
    statement = (
        select(Notice, Submission, Person)
        .join(Evaluation, col(Evaluation.id) == col(Notice.evaluation_id), isouter=True)
        .join(Submission, col(Submission.id) == col(Evaluation.submission_id), isouter=True)
        .join(Person, col(Person.id) == col(Submission.person_id), isouter=True)
        .where(col(Notice.spread_at).is_(None))
        .order_by(col(Notice.id))
        .limit(MOST_SPREAD)
    )
    made = 0
    for notice, submission, person in session.exec(statement).all():
        guarded = update(Notice).where(col(Notice.id) == notice.id, col(Notice.spread_at).is_(None))
        if not session.connection().execute(guarded.values(spread_at=now)).rowcount or now - notice.at > STALE:
            continue
        asker = _asker(submission, person)
        for target in targets:
            if target.wants(notice.event, asker=asker):
                session.add(Delivery(notice_id=notice.id or 0, target=target.name, due_at=now))
                made += 1
    session.flush()
    return made


def hold(session: Session, targets: Sequence[Recipient], *, now: datetime) -> tuple[str, list[Held]]:
    """Take what is due, so that no other sender sends it meanwhile; with the mark to settle it by."""
    holder = secrets.token_hex(8)
    gone = col(Delivery.target).not_in([target.name for target in targets])
    session.connection().execute(
        update(Delivery)
        .where(col(Delivery.state) == "pending", gone)
        .values(state="given_up", sentence="There is no target of that name any more.")
    )
    due = session.exec(
        select(Delivery.notice_id, Delivery.target)
        .where(Delivery.state == "pending", _is_due(now), _is_free(now))
        .order_by(col(Delivery.due_at), col(Delivery.notice_id))
        .limit(MOST_HELD)
    ).all()
    for notice, target in due:
        session.connection().execute(
            update(Delivery)
            .where(
                col(Delivery.notice_id) == notice,
                col(Delivery.target) == target,
                col(Delivery.state) == "pending",
                _is_free(now),
            )
            .values(holder=holder, held_until=now + HOLD, tries=col(Delivery.tries) + 1)
        )
    rows = session.exec(
        select(Delivery, Notice, Evaluation, Submission)
        .join(Notice, col(Notice.id) == col(Delivery.notice_id))
        .join(Evaluation, col(Evaluation.id) == col(Notice.evaluation_id), isouter=True)
        .join(Submission, col(Submission.id) == col(Evaluation.submission_id), isouter=True)
        .where(Delivery.state == "pending", Delivery.holder == holder)
        .order_by(col(Notice.id))
        .execution_options(populate_existing=True)
    ).all()
    return holder, [
        Held(
            delivery.notice_id,
            delivery.target,
            delivery.tries,
            _facts(notice, evaluation, submission, is_own=delivery.target.startswith(PREFIX)),
        )
        for delivery, notice, evaluation, submission in rows
    ]


def settle(session: Session, holder: str, held: Held, *, trouble: str, now: datetime) -> None:
    """Say how a delivery went: sent where there is no trouble, else tried again later, at last given up."""
    values: dict[str, Any] = {"holder": "", "held_until": None, "sentence": trouble}
    if not trouble:
        values |= {"state": "sent", "sent_at": now}
    elif held.tries >= MOST_TRIES:
        values |= {"state": "given_up"}
    else:
        values |= {"due_at": now + pause(held.tries)}
    session.connection().execute(
        update(Delivery)
        .where(
            col(Delivery.notice_id) == held.notice, col(Delivery.target) == held.target, col(Delivery.holder) == holder
        )
        .values(**values)
    )


def pause(tries: int) -> timedelta:
    """Before the next try: twice as long each time."""
    return min(FIRST_PAUSE * (1 << min(tries - 1, 20)), LONGEST_PAUSE)


def _is_due(now: datetime) -> ColumnElement[bool]:
    # What lies further ahead than any pause is from before the clock was set back.
    return (col(Delivery.due_at) <= now) | (col(Delivery.due_at) > now + LONGEST_PAUSE + HOLD)


def _is_free(now: datetime) -> ColumnElement[bool]:
    until = col(Delivery.held_until)
    return until.is_(None) | (until < now) | (until > now + 2 * HOLD)


def _asker(submission: Submission | None, person: Person | None) -> Asker:
    if submission is None:
        return Asker()
    if person is None:
        return Asker(frozenset({submission.submitter}))
    # Not their name: people choose it at the provider, also somebody else's.
    return Asker(frozenset(filter(None, (person.subject, person.email))), person.id)


def _facts(
    notice: Notice, evaluation: Evaluation | None, submission: Submission | None, *, is_own: bool = False
) -> Facts:
    told = notice.facts
    if evaluation is None or submission is None:
        return Facts(
            event=notice.event,
            rerun=notice.rerun_id,
            suite=str(told.get("suite", "")),
            version=str(told.get("version", "")),
            sentence=str(told.get("sentence", "")),
        )
    # Who reads a channel is not known here: of what not everybody may see, the number leads those who may to its page.
    is_public = submission.visibility is Visibility.PUBLIC or is_own
    return Facts(
        event=notice.event,
        evaluation=evaluation.id,
        model=submission.model if is_public else "a model that not everybody may see",
        suite=evaluation.suite,
        version=evaluation.suite_version,
        average=evaluation.average if is_public else None,
        limit=evaluation.document_limit,
        sentence=evaluation.sentence if is_public else "",
        rerun=notice.rerun_id,
    )
