"""The submission form: with a label for everything, without JavaScript, and with each error at its field."""

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.submissions.pages import Page, page


def test_the_form_has_a_label_for_every_field_and_works_without_scripts(client: TestClient) -> None:
    found = page(client, "/submit?model=acme%2Fx")
    fields = {str(facts["id"]) for facts in found.inputs}
    assert fields == found.labels
    assert fields == {
        "model", "revision", "suite", "model_type", "precision", "chat_template", "limit", "weight_type", "base_model",
        "base_revision", "series", "step",
    }  # fmt: skip
    assert {facts["value"] for facts in found.inputs if facts["id"] == "model"} == {"acme/x"}
    assert client.get("/submit").text.count("<script") == 1  # which checks while somebody types


def test_the_form_has_the_cheapest_suite_chosen_unless_another_was_asked_for(client: TestClient) -> None:
    assert re.search(r'<option value="demo" selected>', client.get("/submit").text)
    assert re.search(r'<option value="open-llm-v1" selected>', client.get("/submit?suite=open-llm-v1").text)


def test_a_refused_form_keeps_the_input_and_puts_each_error_at_its_field(client: TestClient, model: Path) -> None:
    given = {"model": str(model), "revision": "v2", "suite": "demo", "limit": "3", "chat_template": "yes"}
    answer = client.post("/submit", data=given)
    assert answer.status_code == 422
    assert re.search(r'id="revision-error">The folder tiny has no revision', answer.text)
    assert 'aria-describedby="revision-error"' in answer.text
    kept = {facts["id"]: facts.get("value") for facts in Page(answer.text).inputs}
    assert (kept["model"], kept["revision"], kept["limit"]) == (str(model), "v2", "3")
    assert client.get("/api/v1/evaluations").json()["evaluations"] == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "Name a model: a Hub id such as org/name"),
        ({"model": "x", "limit": "many"}, "The limit is a whole number of documents"),
        ({"model": "x", "limit": "-1"}, "The limit is a whole number of documents"),
        ({"model": "x", "extra": "1"}, "There is no field &#39;extra&#39;"),
    ],
)
def test_the_form_says_what_a_field_wants(client: TestClient, given: dict[str, str], says: str) -> None:
    answer = client.post("/submit", data=given)
    assert answer.status_code == 422
    assert says in answer.text


def test_an_accepted_form_leads_to_the_evaluation_and_an_equal_one_says_so(client: TestClient, model: Path) -> None:
    given = {"model": str(model), "suite": "demo", "chat_template": "", "limit": ""}
    assert "tiny" in client.post("/submit", data=given).text
    again = client.post("/submit", data=given)
    assert str(again.url).endswith("/evaluations/1?existing=yes")
    assert "An equal evaluation was there already" in again.text
