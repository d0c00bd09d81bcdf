"""What holds of every page, with no JavaScript and whatever strangers wrote."""

import re
from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from orchestrator.lifecycle import EvaluationState
from orchestrator.wire import FailureKind
from submissions.context import Hub
from tests.submissions.factories import DEMO, add_evaluation, add_worker, choice_sample, keep_samples
from tests.submissions.pages import Page, page

HOSTILE = "<script>alert(1)</script>\"'&"


def test_a_suites_page_names_the_task_of_each_counted_number(client: TestClient) -> None:
    found = page(client, "/suites/open-llm-v2").text
    assert "leaderboard_bbh_navigate : acc_norm, baseline 0.5" in found
    assert "leaderboard_musr_team_allocation : acc_norm, baseline 0.333" in found
    assert "exact_match (strict-match), baseline 0.0021" in page(client, "/suites/open-llm-v1").text


def test_whatever_strangers_wrote_is_escaped_everywhere(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(
            session, hub.suites["demo"], model=HOSTILE, values=DEMO, licence=HOSTILE, architecture=HOSTILE,
            base_model=HOSTILE, weight_type="adapter", model_type=HOSTILE,
        )  # fmt: skip
        add_evaluation(
            session, hub.suites["demo"], model=HOSTILE, state=EvaluationState.FAILED, failure=FailureKind.ENGINE,
            sentence=HOSTILE, log_tail=HOSTILE,
        )  # fmt: skip
        add_worker(session, HOSTILE, kind="engine", now=datetime.now(UTC), device=HOSTILE)
    record = {**choice_sample(1), "target": HOSTILE, "arguments": [[HOSTILE, HOSTILE]], "resps": [[[HOSTILE]]]}
    keep_samples(hub, 1, "Letters", task="demo_letters", records=[record])
    paths = [
        "/",
        "/evaluations/1",
        "/evaluations/2",
        "/queue",
        "/evaluations/1/samples/Letters",
        "/submit?model=%3Cscript%3Ealert(1)",
    ]
    paths += [f"/?q={HOSTILE}&sort={HOSTILE}&min={HOSTILE}", f"/suites/{HOSTILE}", f"/?suite={HOSTILE}"]
    for path in paths:
        assert "<script>alert" not in client.get(path).text, path
    answer = client.post("/submit", data={"model": HOSTILE, "revision": HOSTILE, "suite": HOSTILE})
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize("path", ["/nowhere", "/evaluations/9", "/evaluations/nine", "/suites/none", "/?suite=none"])
def test_what_is_not_there_is_a_page_with_a_way_back(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 422)
    assert "/" in Page(answer.text).links


@pytest.mark.parametrize("path", ["/", "/submit", "/queue", "/suites", "/suites/open-llm-v2", "/api/v1/docs"])
def test_every_page_has_its_landmarks_and_no_inline_style_or_script(client: TestClient, path: str) -> None:
    html = client.get(path).text
    assert html.count("<h1") == 1
    assert '<html lang="en">' in html
    assert 'href="#main"' in html
    assert '<main id="main"' in html
    assert not re.search(r"\sstyle=|\son\w+=|<script>", html)
    assert not re.search(r"(src|href)=\"(https?:)?//", html)
