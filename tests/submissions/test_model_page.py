"""A model's page: the history of its scores, drawn small."""

from datetime import timedelta

from starlette.testclient import TestClient

from submissions.context import Hub
from submissions.pages.sparkline import sparkline
from tests.submissions.factories import DEMO, NOON, add_evaluation
from tests.submissions.pages import page


def test_the_history_of_each_score_is_drawn_from_the_earliest_evaluation_on_without_trials(
    hub: Hub, client: TestClient
) -> None:
    demo = hub.suites["demo"]
    with hub.writing() as session:
        for day, sums in enumerate((40.0, 55.0, 52.0)):
            values = {**DEMO, "Sums": sums}
            add_evaluation(session, demo, values=values, at=NOON + timedelta(days=day), revision=f"{day}" * 40)
        add_evaluation(session, demo, values={**DEMO, "Sums": 99.0}, limit=3)
    found = client.get("/models/acme/model-1b").text
    assert 'aria-label="Sums over time: 40.00, 55.00, 52.00"' in found
    assert found.count('class="spark"') == 4


def test_one_evaluation_has_no_history(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    assert "Over time" not in page(client, "/models/acme/model-1b").text


def test_a_trial_is_called_one_where_two_evaluations_are_chosen_to_compare(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
        add_evaluation(session, hub.suites["demo"], values=DEMO, limit=3)
    found = client.get("/models/acme/model-1b").text
    assert found.count("bfloat16 · trial of 3 · version 1</option>") == 2, "one in each list"
    assert found.count("bfloat16 · version 1</option>") == 2


def test_a_drawing_stays_within_its_frame_and_escapes_its_name() -> None:
    drawn = sparkline('<b>"', [0.0, 100.0, 50.0])
    assert 'points="4.0,24.0 48.0,4.0 92.0,14.0"' in drawn
    assert "<b>" not in drawn
    assert sparkline("flat", [40.0, 40.0]).count("14.0") == 3
