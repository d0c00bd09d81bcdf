"""Requests made up from the API's own description: no answer is a failure of the server, and each is as described."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from starlette.testclient import TestClient

from submissions.context import Hub
from submissions.site import make_site
from tests.hub_stub import HubStub
from tests.submissions.factories import DEMO, add_evaluation, choice_sample, keep_samples

HOST = "http://127.0.0.1:8765"


@pytest.fixture
def asking(hub: Hub) -> Iterator[TestClient]:
    """Speaks to a site that has something to show; an error that nobody foresaw is raised here."""
    with hub.writing() as session:
        number = add_evaluation(session, hub.suites["demo"], values=DEMO).id
    assert number is not None
    keep_samples(hub, number, "Letters", task="letters", records=[choice_sample(1)])
    with TestClient(make_site(hub), base_url=HOST, follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("cases", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_request_makes_the_server_fail_and_every_answer_is_described(
    asking: TestClient, hub: Hub, hf_hub: HubStub, cases: int
) -> None:
    whole = asking.app.openapi()  # type: ignore[attr-defined]
    paths = whole["paths"]
    operations = [found.ok() for found in schemathesis.openapi.from_dict(whole).get_all_operations()]
    strategies = [one.as_strategy(generation_mode=GenerationMode.POSITIVE) for one in operations]
    # Of those that take nothing there is nothing to get wrong.
    takers = [one for one in operations if one.body or one.query or one.path_parameters]
    strategies += [one.as_strategy(generation_mode=GenerationMode.NEGATIVE) for one in takers]
    asked = set()

    @given(case=st.one_of(strategies))
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        request = case.as_transport_kwargs(base_url=HOST)
        answer = asking.request(**{name: value for name, value in request.items() if name != "cookies"})
        asked.add(case.operation.label)
        assert answer.status_code < 500, answer.text
        described = paths[case.operation.path][case.operation.method.lower()]["responses"]
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code
            assert (
                answer.headers["content-type"]
                in described.get(str(answer.status_code), described["default"])["content"]
            )
        else:
            kind = answer.headers["content-type"].partition(";")[0]
            assert kind in described[str(answer.status_code)]["content"]

    ask()
    assert len(asked) > len(operations) / 2


def test_an_empty_version_of_a_suite_is_the_one_that_is_shown(asking: TestClient) -> None:
    shown = asking.get("/api/v1/suites/demo")
    assert shown.status_code == 200
    assert asking.get("/api/v1/suites/demo?version=").json() == shown.json()
    assert asking.get("/api/v1/suites/demo", params={"version": "x" * 101}).status_code == 422
