"""Finds out who asks, before anything is answered: by token, else by the browser's session, else nobody."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator import db
from orchestrator.people import Scope as TokenScope
from orchestrator.tables import Person, Token
from submissions.guard import SAFE_METHODS
from submissions.people import sessions, tokens
from submissions.people.persons import teams_of
from submissions.people.viewer import ALL_SCOPES, LOCAL, NOBODY, Viewer, set_present
from submissions.problems import problem

if TYPE_CHECKING:
    from submissions.context import Hub

NOT_KNOWN = (
    "This token is not one of this site's, or it was revoked or has expired. Make a new one at /account and give it to "
    "`evalyard login`, or set EVALYARD_TOKEN."
)
NO_ORIGIN = "Your browser does not say which page made this request, so it was refused. Use a current browser."


class Identify:
    """ASGI middleware: says who asks, for all that follows."""

    def __init__(self, app: ASGIApp, hub: "Hub") -> None:
        self.app = app
        self.hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/static/"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        token, cookies = bearer(headers.get("authorization", "")), headers.get("cookie")
        if self.hub.accounts is None:
            viewer: Viewer | None = LOCAL
        elif token is None and self.hub.accounts.cookie.read(cookies) == "":
            viewer = NOBODY
        else:
            viewer = await run_in_threadpool(identify, self.hub, token, cookies)
        if viewer is None:
            await problem(401, NOT_KNOWN)(scope, receive, send)
            return
        by_cookie = viewer.has_accounts and viewer.person is not None and viewer.token is None
        if by_cookie and scope["method"] not in SAFE_METHODS and not _says_origin(headers):
            await problem(403, NO_ORIGIN)(scope, receive, send)
            return
        set_present(viewer)
        await self.app(scope, receive, send)


def bearer(authorization: str) -> str | None:
    """The token of an `authorization` header; None for another scheme, which is a proxy's own business. Pure."""
    scheme, _, secret = authorization.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


def identify(hub: "Hub", secret: str | None, cookies: str | None) -> Viewer | None:
    """Who asks; None for a token that is none."""
    accounts = hub.accounts
    assert accounts is not None
    now = datetime.now(UTC)
    token: Token | None = None
    with db.session(hub.engine, read_only=True) as session:
        if secret is not None:
            token = tokens.find(session, accounts.digester, secret, now)
            if token is None:
                return None
            person: int | None = token.person_id
        else:
            person = sessions.find(session, accounts.digester, accounts.cookie.read(cookies), now)
        row = session.get(Person, person) if person is not None else None
        viewer = None
        if row is not None and row.id is not None and not row.blocked:
            viewer = _viewer(row, token, teams_of(session, row.id))
    if token is not None and token.id is not None and viewer is not None and tokens.is_use_news(token, now):
        with db.session(hub.engine) as session:
            tokens.note_use(session, token.id, now)
    return viewer if viewer is not None or secret is not None else NOBODY


def _viewer(person: Person, token: Token | None, teams: frozenset[str]) -> Viewer:
    known = {scope.value for scope in TokenScope}
    return Viewer(
        person=person.id,
        name=person.name,
        role=person.role,
        teams=teams,
        scopes=frozenset(TokenScope(one) for one in token.scopes if one in known) if token else ALL_SCOPES,
        token=token.id if token else None,
    )


def _says_origin(headers: Headers) -> bool:
    """Whether the browser says where the request comes from; that it is from here, the guard has made sure."""
    return "origin" in headers or "sec-fetch-site" in headers
