"""Fixtures of a site with accounts, its identity provider, and people who have signed in."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from submissions.context import Hub
from submissions.site import make_site
from tests.identity_provider import CLIENT, SECRET, IdentityProvider, running_provider
from tests.submissions.factories import make_hub
from tests.submissions.people.browser import SITE, Browser

SignIn = Callable[..., Browser]


@pytest.fixture(scope="module")
def one_provider() -> Iterator[tuple[IdentityProvider, RSAKey]]:
    with running_provider() as provider:
        yield provider, provider.key


@pytest.fixture
def provider(one_provider: tuple[IdentityProvider, RSAKey]) -> IdentityProvider:
    """The provider as it comes, whatever the test before has spoilt."""
    running, key = one_provider
    for name, value in vars(IdentityProvider(issuer=running.issuer, key=key)).items():
        setattr(running, name, value)
    return running


@pytest.fixture
def hub(tmp_path: Path, provider: IdentityProvider) -> Hub:
    """A hub with accounts; `root` is its admin."""
    return make_hub(
        tmp_path / "data",
        login_issuer=provider.issuer,
        login_client_id=CLIENT,
        login_client_secret=SECRET,
        public_url=SITE,
        admins="root",
        models=tmp_path,
    )


@pytest.fixture
def site(hub: Hub) -> Callable[[], TestClient]:
    """Browsers of this site, each with its own cookies."""
    app = make_site(hub)
    return lambda: TestClient(app, base_url=SITE, raise_server_exceptions=False, follow_redirects=False)


@pytest.fixture
def sign_in(site: Callable[[], TestClient], provider: IdentityProvider) -> SignIn:
    """Sign in as somebody, in a browser of their own."""

    def enter(name: str, **claims: object) -> Browser:
        provider.person = {"sub": name, "preferred_username": name} | claims
        browser = Browser(site())
        browser.sign_in()
        return browser

    return enter
