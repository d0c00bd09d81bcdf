"""What a site with accounts needs besides: the provider, the key of its digests, its limits and cookies."""

from dataclasses import dataclass

from orchestrator.notices.targets import read_hub_targets
from orchestrator.sealing import open_sealer
from orchestrator.settings import HubSettings
from submissions.people.addresses import Network, networks
from submissions.people.keys import Digester, open_digester
from submissions.people.limits import Limiter
from submissions.people.own_targets import Means
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
    means: Means
    """By what people are told."""
    proxies: tuple[Network, ...]
    """Whose word on where a request comes from is believed."""


def open_accounts(settings: HubSettings) -> Accounts | None:
    """The accounts of this site; None where it has none.

    Raises:
        SettingsError: its key or its notifications file cannot be used.
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
        means=Means(
            sealer=open_sealer(settings),
            has_mail=read_hub_targets(settings).mail is not None,
            allowed=settings.open_webhook_hosts,
        ),
        proxies=networks(settings.trusted_proxies),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
