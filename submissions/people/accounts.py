"""What a site with accounts needs besides: the provider, the key of its digests, its limits and cookies."""

from dataclasses import dataclass

from orchestrator.settings import HubSettings
from submissions.people.keys import Digester, open_digester
from submissions.people.limits import Limiter
from submissions.people.provider import Provider
from submissions.people.sessions import Cookie, session_cookie


@dataclass(frozen=True)
class Accounts:
    provider: Provider
    digester: Digester
    limiter: Limiter
    cookie: Cookie
    admins: tuple[str, ...]
    members: tuple[str, ...]


def open_accounts(settings: HubSettings) -> Accounts | None:
    """The accounts of this site; None where it has none.

    Raises:
        SettingsError: the key of its digests cannot be used.
    """
    if not settings.has_accounts:
        return None
    return Accounts(
        provider=Provider(settings),
        digester=open_digester(settings),
        limiter=Limiter(),
        cookie=session_cookie(settings),
        admins=_listed(settings.admins),
        members=_listed(settings.login_members),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
