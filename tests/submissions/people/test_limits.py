"""Whom limits count, and what ends with what: addresses behind proxies, tokens made with tokens, retries, teams."""

import pytest

from orchestrator.lifecycle import EvaluationState
from orchestrator.wire import FailureKind
from submissions.context import Hub
from submissions.people.addresses import address_of, networks
from submissions.people.persons import identity_of
from submissions.people.quota import MOST_RETRIES
from tests.submissions.conftest import problem
from tests.submissions.factories import add_evaluation
from tests.submissions.people.browser import Browser
from tests.submissions.people.conftest import SignIn


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        ("203.0.113.9", "", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "", "203.0.113.9"),  # whoever comes directly may write what they like
        ("127.0.0.1", "198.51.100.1", "", "198.51.100.1"),
        ("127.0.0.1", "6.6.6.6, 198.51.100.1", "", "198.51.100.1"),  # what came before the proxy is anybody's word
        ("10.0.0.2", "6.6.6.6, 198.51.100.1, 10.0.0.9", "10.0.0.0/8", "198.51.100.1"),
        ("10.0.0.2", "198.51.100.1", "", "10.0.0.2"),
        ("127.0.0.1", "nonsense", "", "nonsense"),
        ("2001:db8:1:2:3::4", "", "", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "", "", "203.0.113.9"),
    ],
)
def test_an_address_is_believed_from_a_trusted_proxy_alone(
    peer: str, forwarded: str, trusted: str, address: str
) -> None:
    assert address_of(peer, forwarded, networks(trusted)) == address


def test_a_token_that_was_made_with_a_token_ends_with_it(sign_in: SignIn, site) -> None:  # type: ignore[no-untyped-def]
    ada, thief = sign_in("ada"), Browser(site()).client
    leaked, own = ada.token(), ada.token(name="own")

    def made_with(secret: str) -> str:
        answer = thief.post("/api/v1/tokens", json={"name": "x"}, headers={"authorization": f"Bearer {secret}"})
        return str(answer.json()["secret"])

    def works(secret: str) -> bool:
        return thief.get("/api/v1/account", headers={"authorization": f"Bearer {secret}"}).status_code == 200

    child = made_with(leaked)
    grandchild = made_with(child)
    assert all(map(works, (leaked, child, grandchild, own)))
    assert ada.post("/account/tokens/1/revoke").status_code == 303
    assert [works(secret) for secret in (leaked, child, grandchild, own)] == [False, False, False, True]


def test_an_evaluation_is_retried_so_often_in_a_day_by_whose_it_is(sign_in: SignIn, hub: Hub) -> None:
    ada, root = sign_in("ada"), sign_in("root")
    person = ada.get("/api/v1/account").json()["person"]
    with hub.writing() as session:
        number = add_evaluation(
            session,
            hub.suites["demo"],
            state=EvaluationState.FAILED,
            failure=FailureKind.CONFIG,
            sentence="x",
            person_id=person,
        ).id
    for _ in range(MOST_RETRIES):
        assert ada.post(f"/api/v1/evaluations/{number}/retry").status_code == 200
        _fail(hub, number or 0)
    assert "an operator can retry it" in problem(ada.post(f"/api/v1/evaluations/{number}/retry"), 429)["detail"]
    assert root.post(f"/api/v1/evaluations/{number}/retry").status_code == 200


def _fail(hub: Hub, number: int) -> None:
    from sqlmodel import select

    from orchestrator.lifecycle import JobState
    from orchestrator.tables import Evaluation, Job

    with hub.writing() as session:
        row = session.get(Evaluation, number)
        assert row is not None
        row.state = EvaluationState.FAILED
        for job in session.exec(select(Job).where(Job.evaluation_id == number)).all():
            job.state, job.failure = JobState.FAILED, FailureKind.CONFIG


def test_two_teams_never_become_one_and_no_address_becomes_a_name() -> None:
    teams = ["/company/" + "x" * 90 + colour for colour in ("/red", "/blue")]
    claims = {"sub": "u-1", "preferred_username": "ada@example.org", "groups": [*teams, "straße", "STRASSE", "Red"]}
    found = identity_of("i", claims, teams_claim="groups")
    assert found.teams == ("straße", "strasse", "red")
    assert found.name == "ada"
