"""API tokens: made once and shown once, kept as a keyed digest, found in constant time, revoked by their number."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import update
from sqlmodel import Session, col, func, select

from orchestrator.errors import NotFound, Refused
from orchestrator.people import Scope
from orchestrator.tables import Person, Token
from submissions.people.keys import TOKEN, Digester, new_token, same
from submissions.people.viewer import Viewer

MOST_TOKENS = 50
"""Of one person, that are neither revoked nor expired."""
SHOWN_CHARACTERS = 10
USED_STEP = timedelta(hours=1)
PURPOSE = "token"


class Made(NamedTuple):
    row: Token
    secret: str
    """Shown this once."""


def create(
    session: Session,
    digester: Digester,
    viewer: Viewer,
    *,
    name: str,
    scopes: Iterable[Scope],
    days: int | None,
    now: datetime,
) -> Made:
    """A new token of the viewer's own; made with a token, it can do no more and lasts no longer than that one.

    Raises:
        Refused: it would be able to do more, or there are too many.
    """
    assert viewer.person is not None
    wanted = sorted(set(scopes))
    if not wanted:
        raise Refused("A token needs at least one scope: read, submit or operate.")
    if beyond := [scope.value for scope in wanted if scope not in viewer.scopes]:
        raise Refused(f"The token you use has not the scope {', '.join(beyond)}, and can make none that has it.")
    session.exec(select(Person.id).where(Person.id == viewer.person).with_for_update()).one()
    if session.exec(select(func.count()).select_from(_living(viewer.person, now).subquery())).one() >= MOST_TOKENS:
        raise Refused(f"You have {MOST_TOKENS} tokens already. Revoke some first.")
    expires = now + timedelta(days=days) if days is not None else None
    if viewer.token is not None:
        own = session.exec(select(Token).where(Token.id == viewer.token)).one()
        if own.revoked_at is not None:
            raise Refused("The token you use was revoked a moment ago, and can make none.")
        expires = min(filter(None, (expires, own.expires_at)), default=None)
    secret = new_token()
    row = Token(
        person_id=viewer.person,
        name=name,
        prefix=secret[:SHOWN_CHARACTERS],
        digest=digester.digest(secret, PURPOSE),
        scopes=[scope.value for scope in wanted],
        made_at=now,
        expires_at=expires,
        made_with=viewer.token,
    )
    session.add(row)
    session.flush()
    return Made(row, secret)


def list_tokens(session: Session, person: int, now: datetime) -> list[Token]:
    """The person's tokens that can be used, the latest first."""
    return list(session.exec(_living(person, now).order_by(col(Token.id).desc())).all())


def revoke(session: Session, viewer: Viewer, token: int, now: datetime) -> Token:
    """End one of the viewer's own tokens, at once, and with it all that were made with it.

    Raises:
        NotFound: they have no such token.
    """
    row = session.exec(select(Token).where(Token.id == token, Token.person_id == viewer.person)).first()
    if row is None:
        raise NotFound(f"You have no token {token}. `evalyard token list` names those you have.")
    # Those that come at the same moment with the token itself follow, or find it ended.
    session.exec(select(Person.id).where(Person.id == viewer.person).with_for_update()).one()
    ending: set[int | None] = {row.id}
    while ending:
        of_these = (col(Token.person_id) == viewer.person, col(Token.id).in_(ending), col(Token.revoked_at).is_(None))
        session.exec(update(Token).where(*of_these).values(revoked_at=now))
        ending = set(session.exec(select(Token.id).where(col(Token.made_with).in_(ending))).all())
    session.refresh(row)
    return row


def find(session: Session, digester: Digester, secret: str, now: datetime) -> Token | None:
    """The token of this secret, when it may still be used."""
    if not TOKEN.fullmatch(secret):
        return None
    digest = digester.digest(secret, PURPOSE)
    row = session.exec(select(Token).where(Token.digest == digest)).first()
    if row is None or not same(row.digest, digest) or row.revoked_at is not None:
        return None
    return row if row.expires_at is None or row.expires_at > now else None


def note_use(session: Session, token: int, now: datetime) -> None:
    row = session.get(Token, token)
    if row is not None:
        row.used_at = now
        session.add(row)


def is_use_news(token: Token, now: datetime) -> bool:
    """Whether its last use is long enough ago to be written down anew."""
    return token.used_at is None or now - token.used_at > USED_STEP


def _living(person: int, now: datetime):  # type: ignore[no-untyped-def]  # sqlmodel's own name for it is private
    fresh = col(Token.expires_at).is_(None) | (col(Token.expires_at) > now)
    return select(Token).where(Token.person_id == person, col(Token.revoked_at).is_(None), fresh)
