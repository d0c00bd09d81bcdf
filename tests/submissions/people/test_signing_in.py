"""Signing in by an identity provider: what holds, and what is refused."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from joserfc.jwk import RSAKey
from sqlmodel import select
from starlette.responses import Response
from starlette.testclient import TestClient

from orchestrator.people import Role
from orchestrator.tables import Membership, Person, SignIn, WebSession
from submissions.context import Hub
from submissions.people.sessions import LASTS, session_cookie
from submissions.site import make_site
from tests.identity_provider import IdentityProvider
from tests.submissions.conftest import problem
from tests.submissions.factories import make_hub
from tests.submissions.people.browser import Browser
from tests.submissions.people.conftest import SignIn as SignInAs

Site = Callable[[], TestClient]


def test_a_person_signs_in_and_goes_on_where_they_were_going(site: Site, hub: Hub) -> None:
    browser = Browser(site())
    assert browser.get("/submit").headers["location"] == "/signin?next=%2Fsubmit"
    assert browser.sign_in("/submit").headers["location"] == "/submit"
    assert browser.get("/api/v1/account").json()["name"] == "ada"
    with hub.reading() as session:
        (person,) = session.exec(select(Person)).all()
    assert (person.subject, person.role, person.email) == ("u-1", Role.SUBMITTER, None)


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(site: Site) -> None:
    answer = Browser(site()).sign_in()
    (cookie,) = [one for one in answer.headers.get_list("set-cookie") if one.startswith("evalyard-session=")]
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= {part.strip() for part in cookie.split(";")}


def test_over_https_the_cookie_is_secure_and_no_subdomain_may_set_it(hub: Hub) -> None:
    answer = Response()
    https = hub.settings.model_copy(update={"public_url": "https://evals.example"})
    session_cookie(https).set(answer, "x", lasts=LASTS)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-evalyard-session=x;")
    assert "Secure" in cookie


def test_no_secret_of_a_session_or_sign_in_is_in_the_database(site: Site, hub: Hub) -> None:
    browser = Browser(site())
    back = browser.begin()
    state = dict(parse_qsl(urlsplit(back).query))["state"]
    secret = browser.cookies["evalyard-signin"]
    with hub.reading() as session:
        (begun,) = session.exec(select(SignIn)).all()
    assert not {state, secret} & {begun.state, begun.browser}
    browser.come_back(back)
    with hub.reading() as session:
        (kept,) = session.exec(select(WebSession)).all()
        assert session.exec(select(SignIn)).all() == []
    assert browser.cookies["evalyard-session"] not in kept.digest


def test_signing_in_again_makes_a_new_session_and_ends_the_old_one(site: Site) -> None:
    browser, old = Browser(site()), Browser(site())
    back = browser.begin()
    browser.sign_in()
    old.take({"evalyard-session": browser.cookies["evalyard-session"]})
    assert old.get("/api/v1/account").status_code == 200
    assert browser.get("/signin").headers["location"] == "/"  # whoever is signed in is not sent away again
    again = Browser(site())
    back = again.begin()
    again.take({"evalyard-session": browser.cookies["evalyard-session"]})
    again.come_back(back)
    assert again.cookies["evalyard-session"] != browser.cookies["evalyard-session"]
    problem(old.get("/api/v1/account"), 401)


def test_a_forged_state_is_refused(site: Site) -> None:
    browser = Browser(site())
    back = urlsplit(browser.begin())
    query = dict(parse_qsl(back.query)) | {"state": "forged"}
    answer = browser.come_back(f"{back.path}?{urlencode(query)}")
    assert answer.status_code == 403
    assert "was not begun in this browser" in answer.text
    assert "evalyard-session" not in browser.cookies


def test_what_one_browser_began_no_other_can_end(site: Site) -> None:
    """Else an attacker could sign somebody in as the attacker."""
    attacker, victim = Browser(site()), Browser(site())
    back = attacker.begin()
    victim.begin()
    assert victim.come_back(back).status_code == 403
    assert "evalyard-session" not in victim.cookies


def test_a_code_is_used_once(site: Site) -> None:
    browser = Browser(site())
    back = browser.begin()
    kept = dict(browser.cookies)
    assert browser.come_back(back).status_code == 303
    again = Browser(site())
    again.take(kept)
    assert again.come_back(back).status_code == 403


def test_a_code_of_another_sign_in_is_refused_by_the_proof_of_its_verifier(site: Site) -> None:
    one, two = Browser(site()), Browser(site())
    stolen = dict(parse_qsl(urlsplit(one.begin()).query))["code"]
    back = urlsplit(two.begin())
    query = dict(parse_qsl(back.query)) | {"code": stolen}
    assert two.come_back(f"{back.path}?{urlencode(query)}").status_code == 403


SPOILT = {
    "a foreign nonce": {"nonce": "of another sign-in"},
    "no nonce": {"nonce": None},
    "another audience": {"aud": "another-site"},
    "another issuer": {"iss": "https://evil.example"},
    "expired": {"exp": int(time.time()) - 3600},
    "no expiry": {"exp": None},
    "no subject": {"sub": None},
    "issued in an hour": {"iat": int(time.time()) + 3600, "exp": int(time.time()) + 7200},
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT)
def test_an_id_token_that_does_not_hold_signs_nobody_in(
    site: Site, provider: IdentityProvider, hub: Hub, spoilt: dict[str, object]
) -> None:
    provider.spoilt = spoilt
    browser = Browser(site())
    answer = browser.come_back(browser.begin())
    assert answer.status_code == 403, answer.text
    assert "does not hold" in answer.text
    with hub.reading() as session:
        assert session.exec(select(Person)).all() == []


def test_an_id_token_signed_by_another_key_is_refused(site: Site, provider: IdentityProvider) -> None:
    provider.signs_with = RSAKey.generate_key(2048, {"kid": "k1"})
    browser = Browser(site())
    assert browser.come_back(browser.begin()).status_code == 403


@pytest.mark.parametrize("algorithm", ["HS256", "none"])
def test_an_id_token_that_the_providers_own_key_did_not_sign_is_refused(
    site: Site, provider: IdentityProvider, algorithm: str
) -> None:
    provider.algorithm = algorithm
    browser = Browser(site())
    assert browser.come_back(browser.begin()).status_code == 403


def test_a_new_key_of_the_provider_is_fetched(site: Site, provider: IdentityProvider) -> None:
    Browser(site()).sign_in()
    provider.key = RSAKey.generate_key(2048, {"kid": "k2"})
    provider.key_id = "k2"
    Browser(site()).sign_in()


def test_a_provider_that_is_away_is_said_so_and_nobody_is_signed_out(
    site: Site, provider: IdentityProvider, sign_in: SignInAs
) -> None:
    ada = sign_in("ada")
    browser = Browser(site())
    back = browser.begin()
    provider.is_away = True
    answer = browser.come_back(back)
    assert (answer.status_code, "does not answer as it should" in answer.text) == (503, True)
    assert ada.get("/api/v1/account").status_code == 200


def test_a_provider_that_is_away_is_not_asked_again_at_once(site: Site, provider: IdentityProvider) -> None:
    """Each who asks it holds one of the threads that serve everybody."""
    provider.is_silent = True
    assert [site().get("/signin").status_code for _ in range(3)] == [503] * 3
    assert provider.asked.count("/.well-known/openid-configuration") == 1


def test_nobody_waits_long_behind_another_who_asks_a_provider_that_hangs(
    site: Site, provider: IdentityProvider
) -> None:
    provider.hangs = True
    with ThreadPoolExecutor(1) as others:
        first = others.submit(site().get, "/signin")
        try:
            assert provider.was_asked.wait(20)
            second = site().get("/signin")
            assert (second.status_code, "slow to answer" in second.text, first.done()) == (503, True, False)
        finally:
            provider.may_answer.set()
        assert first.result().status_code == 303


@pytest.mark.parametrize("next", ["https://evil.example", "//evil.example", "/\\evil.example", "/ x", "javascript:x"])
def test_nobody_is_sent_to_another_site_afterwards(site: Site, next: str) -> None:
    assert Browser(site()).sign_in(next).headers["location"] == "/"


def test_teams_and_the_verified_address_are_those_of_the_last_sign_in(sign_in: SignInAs, hub: Hub) -> None:
    sign_in("ada", groups=["Vision", "NLP"], email="ada@example.org", email_verified=False)
    sign_in("ada", groups=[{"preferred_username": "Vision"}], email="ada@example.org", email_verified=True)
    with hub.reading() as session:
        (person,) = session.exec(select(Person)).all()
        assert session.exec(select(Membership.team)).all() == ["vision"]
    assert person.email == "ada@example.org"


def test_whom_the_settings_name_is_an_admin_and_a_name_alone_is_not_enough(sign_in: SignInAs) -> None:
    assert sign_in("root").get("/api/v1/account").json()["role"] == "admin"
    assert sign_in("u-2", preferred_username="root").get("/api/v1/account").json()["role"] == "submitter"
    assert sign_in("u-3", email="root", email_verified=False).get("/api/v1/account").json()["role"] == "submitter"


def test_signing_out_ends_the_session_on_the_server(sign_in: SignInAs, site: Site) -> None:
    ada = sign_in("ada")
    kept = ada.cookies["evalyard-session"]
    assert ada.post("/signout").status_code == 303
    thief = Browser(site())
    thief.take({"evalyard-session": kept})
    problem(thief.get("/api/v1/account"), 401)


def test_without_accounts_one_person_may_do_everything_and_the_site_says_so(tmp_path: Path) -> None:
    client = TestClient(make_site(make_hub(tmp_path / "alone")), base_url="http://127.0.0.1:8765")
    account = client.get("/api/v1/account").json()
    assert (account["has_accounts"], account["role"]) == (False, "admin")
    assert "This site has no accounts" in client.get("/account").text
    assert "no accounts" in problem(client.post("/api/v1/tokens", json={"name": "x"}), 409)["detail"]
