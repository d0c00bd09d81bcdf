"""How people say where they want to be told: their own alone, shown without its secret, kept encrypted."""

import pytest
from sqlalchemy import text
from sqlmodel import select

from orchestrator import db
from orchestrator.notices.own import own_name
from orchestrator.tables import Delivery, Notice, Person
from submissions.context import Hub
from tests.submissions.conftest import problem
from tests.submissions.factories import NOON
from tests.submissions.people.browser import Browser
from tests.submissions.people.conftest import SignIn

URL = "https://hooks.example.org/services/T0PSECRET"
TARGETS = "/api/v1/account/targets"


def test_a_webhook_is_kept_encrypted_shown_by_its_host_and_ended(sign_in: SignIn, hub: Hub) -> None:
    ada, eve = sign_in("ada"), sign_in("eve")
    assert ada.post("/account/targets", data={"kind": "webhook", "url": URL}).headers["location"] == "/account#told"
    (shown,) = ada.get(TARGETS).json()
    assert (shown["kind"], shown["address"]) == ("webhook", "https://hooks.example.org/…")
    page = ada.get("/account").text
    assert ("https://hooks.example.org/…" in page, "T0PSECRET" in page) == (True, False)
    assert eve.get(TARGETS).json() == []
    with db.session(hub.engine, read_only=True) as session:
        tables = session.connection().execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars()
        for table in tables.all():
            assert "T0PSECRET" not in str(session.connection().execute(text(f'SELECT * FROM "{table}"')).all()), table
    problem(eve.client.delete(f"{TARGETS}/webhook", headers={"origin": str(eve.client.base_url)}), 404)
    assert ada.post("/account/targets/webhook/remove").status_code == 303
    assert ada.get(TARGETS).json() == []


@pytest.mark.parametrize(
    "url", ["http://hooks.example.org/", "https://127.0.0.1:8765/api", "https://localhost/x", "https://x:1/", ""]
)
def test_a_webhook_that_leads_inwards_is_refused_by_form_and_api(sign_in: SignIn, url: str) -> None:
    ada = sign_in("ada")
    assert ada.post("/account/targets", data={"kind": "webhook", "url": url}).status_code == 422
    refused = ada.client.put(f"{TARGETS}/webhook", json={"url": url}, headers={"origin": str(ada.client.base_url)})
    assert "webhook" in problem(refused, 422)["detail"] or "private" in refused.text
    assert ada.get(TARGETS).json() == []


def test_whoever_is_told_by_it_reads_why_the_last_message_was_not_taken(sign_in: SignIn, hub: Hub) -> None:
    ada, eve = sign_in("ada"), sign_in("eve")
    for browser in (ada, eve):
        assert browser.post("/account/targets", data={"kind": "webhook", "url": URL}).status_code == 303
    with hub.writing() as session:
        row = session.exec(select(Person).where(Person.name == "ada")).one()
        target = own_name(row.id or 0, "webhook")
        refused = "It answered with status 500."
        told = [("given_up", "Old."), ("pending", "Earlier."), ("pending", refused), ("sent", "")]
        for number, (state, sentence) in enumerate(told, 1):
            session.add(Notice(id=number, key=str(number), event="evaluation_finished", at=NOON))
            session.flush()
            session.add(Delivery(notice_id=number, target=target, state=state, sentence=sentence, due_at=NOON))
    assert [one["trouble"] for one in ada.get(TARGETS).json()] == [refused]
    said = f"The last message was not taken, and is tried again: {refused}"
    assert (said in ada.get("/account").text, said in eve.get("/account").text) == (True, False)


def test_mail_needs_a_server_and_a_verified_address(sign_in: SignIn) -> None:
    ada = sign_in("ada", email="ada@example.org", email_verified=True)
    assert "sends no mail" in ada.post("/account/targets", data={"kind": "mail"}).text


def test_a_token_that_may_only_read_changes_nothing(sign_in: SignIn, site) -> None:  # type: ignore[no-untyped-def]
    secret = sign_in("ada").token("read")
    script = Browser(site()).client
    answer = script.put(f"{TARGETS}/webhook", json={"url": URL}, headers={"authorization": f"Bearer {secret}"})
    problem(answer, 403)


def test_without_signing_in_there_is_nothing_to_be_told(site) -> None:  # type: ignore[no-untyped-def]
    problem(Browser(site()).get(TARGETS), 401)
