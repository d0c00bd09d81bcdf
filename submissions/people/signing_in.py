"""Signing in and out: what happens between the button and the session. The pages are in `submissions.pages.account`.

What a browser begins, it alone can end, once: the state that the provider gives back is known by its digest, is used up
by the first who brings it, and goes with a secret that only this browser keeps. From that secret come the nonce and the
PKCE verifier, so that neither is kept here.
"""

import re
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete
from sqlmodel import col

from orchestrator import db
from orchestrator.settings import HubSettings
from orchestrator.tables import SignIn
from submissions.context import Hub
from submissions.people import persons, sessions
from submissions.people.keys import new_secret, same
from submissions.people.refusals import SignInRefused
from submissions.people.sessions import Cookie

LASTS = timedelta(minutes=10)
OWN_PATH = re.compile(r"/(?![/\\])[^\s\\]{0,1000}")
"""A path of this site, and nothing that a browser takes for another one's address."""
BEGIN_AGAIN = "This sign-in was not begun in this browser, or too long ago, or was used already. Begin again: /signin."


class Begun(NamedTuple):
    address: str
    """Where to send the browser."""
    secret: str
    """What the browser keeps meanwhile."""


class SignedIn(NamedTuple):
    secret: str
    """Of the new session."""
    next: str
    """Path of the page to go on to."""


def sign_in_cookie(settings: HubSettings) -> Cookie:
    return Cookie(settings, "signin")


def begin(hub: Hub, next_path: str, now: datetime) -> Begun:
    """Begin a sign-in, for one browser.

    Raises:
        ProviderAway: the provider does not answer.
    """
    accounts = hub.need_accounts()
    state, secret = new_secret(), new_secret()
    address = accounts.provider.address(state=state, **_derived(hub, secret))
    with db.session(hub.engine) as session:
        session.exec(delete(SignIn).where(col(SignIn.expires_at) <= now))
        session.add(
            SignIn(
                state=accounts.digester.digest(state, "state"),
                browser=accounts.digester.digest(secret, "browser"),
                next=own_path(next_path),
                expires_at=now + LASTS,
            )
        )
    return Begun(address, secret)


def finish(hub: Hub, *, state: str, code: str, secret: str, old_session: str, now: datetime) -> SignedIn:
    """End a sign-in: a person, and a new session of theirs.

    Raises:
        SignInRefused: something of it does not hold; nobody is signed in.
        ProviderAway: the provider does not answer.
    """
    accounts = hub.need_accounts()
    begun = _take(hub, state)
    mine = accounts.digester.digest(secret, "browser")
    if begun is None or not secret or not same(begun.browser, mine) or begun.expires_at <= now:
        raise SignInRefused(BEGIN_AGAIN)
    if not code:
        raise SignInRefused("The provider did not let you in, or you declined. Begin again: /signin.")
    identity = accounts.provider.redeem(code, **_derived(hub, secret))
    with db.session(hub.engine) as session:
        person = persons.welcome(session, identity, admins=accounts.admins, members=accounts.members, now=now)
        assert person.id is not None
        made = sessions.begin(session, accounts.digester, person.id, replaces=old_session, now=now)
    return SignedIn(made, begun.next)


def own_path(path: str) -> str:
    """The path itself if it is one of this site, else the board's."""
    return path if OWN_PATH.fullmatch(path) else "/"


def _take(hub: Hub, state: str) -> SignIn | None:
    """What was begun under this state; whoever comes second finds nothing."""
    digest = hub.need_accounts().digester.digest(state, "state")
    with db.session(hub.engine) as session:
        row = session.get(SignIn, digest)
        if row is None:
            return None
        session.expunge(row)
        taken = session.connection().execute(delete(SignIn).where(col(SignIn.state) == digest))
        return row if taken.rowcount == 1 else None


def _derived(hub: Hub, secret: str) -> dict[str, str]:
    digester = hub.need_accounts().digester
    return {"nonce": digester.digest(secret, "nonce"), "verifier": digester.digest(secret, "verifier")}
