"""Browser sessions: a random cookie, kept as a digest, with a new one at each sign-in and an end that does not move."""

from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlmodel import Session, col, select
from starlette.responses import Response

from orchestrator.settings import HubSettings
from orchestrator.tables import WebSession
from submissions.people.keys import Digester, new_secret

LASTS = timedelta(days=7)
PURPOSE = "session"


class Cookie:
    """A cookie of this site: for its own pages alone, out of reach of scripts, and over https but on loopback."""

    def __init__(self, settings: HubSettings, name: str) -> None:
        self.is_secure = settings.public_url.startswith("https://")
        # With this prefix browsers refuse it from any other host, a subdomain's among them.
        self.name = f"__Host-evalyard-{name}" if self.is_secure else f"evalyard-{name}"

    def read(self, header: str | None) -> str:
        """Its value in a request's `cookie` header; empty where it is not there."""
        for part in (header or "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.name:
                return value[:200]
        return ""

    def set(self, response: Response, value: str, *, lasts: timedelta) -> None:
        response.set_cookie(
            self.name,
            value,
            max_age=int(lasts.total_seconds()),
            path="/",
            secure=self.is_secure,
            httponly=True,
            samesite="lax",
        )

    def clear(self, response: Response) -> None:
        response.delete_cookie(self.name, path="/", secure=self.is_secure, httponly=True, samesite="lax")


def session_cookie(settings: HubSettings) -> Cookie:
    return Cookie(settings, "session")


def begin(session: Session, digester: Digester, person: int, *, replaces: str, now: datetime) -> str:
    """A new session's secret; the one that the browser had before ends."""
    end(session, digester, replaces)
    session.exec(delete(WebSession).where(col(WebSession.expires_at) <= now))
    secret = new_secret()
    digest = digester.digest(secret, PURPOSE)
    session.add(WebSession(digest=digest, person_id=person, made_at=now, expires_at=now + LASTS))
    session.flush()
    return secret


def end(session: Session, digester: Digester, secret: str) -> None:
    """End a session; harmless where there is none."""
    if secret:
        session.exec(delete(WebSession).where(col(WebSession.digest) == digester.digest(secret, PURPOSE)))


def find(session: Session, digester: Digester, secret: str, now: datetime) -> int | None:
    """The person of a session that has not ended."""
    query = select(WebSession).where(WebSession.digest == digester.digest(secret, PURPOSE))
    row = session.exec(query).first()
    return row.person_id if row is not None and row.expires_at > now else None
