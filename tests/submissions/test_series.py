"""Checkpoints of a training run: submitted as steps, shown by step, each owner's apart."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from orchestrator import series
from submissions.context import Hub
from tests.submissions.command import Command
from tests.submissions.conftest import problem
from tests.submissions.factories import DEMO, NOON, add_evaluation


def test_a_checkpoint_becomes_a_step_of_its_series(client: TestClient, model: Path) -> None:
    asked = {"model": str(model), "suite": "demo", "series": "run-7", "step": 100}
    number = client.post("/api/v1/evaluations", json=asked).json()["evaluation"]["id"]
    assert client.get(f"/api/v1/evaluations/{number}").json()["series"] == [{"name": "run-7", "owner": 0, "step": 100}]
    assert "/series/run-7" in client.get(f"/evaluations/{number}").text
    # Asked for again it is there already, and moves to the step that is named now.
    assert client.post("/api/v1/evaluations", json=asked | {"step": 200}).json()["existing"] is True
    (run,) = client.get("/api/v1/series/run-7").json()["runs"]
    assert [(point["step"], point["evaluation"]) for point in run["points"]] == [(200, number)]


@pytest.mark.parametrize(
    "wrong", [{"series": "x"}, {"step": 3}, {"series": "../x", "step": 1}, {"series": "x", "step": -1}]
)
def test_a_series_without_a_step_or_with_an_odd_name_is_refused(client: TestClient, wrong: dict[str, object]) -> None:
    problem(client.post("/api/v1/evaluations", json={"model": "a/b", "suite": "demo"} | wrong), 422)
    assert client.post("/submit", data={"model": "a/b", "suite": "demo"} | wrong).status_code == 422


def test_steps_are_shown_in_order_and_what_cannot_be_compared_apart(
    client: TestClient, hub: Hub, evalyard: Command
) -> None:
    with hub.writing() as session:
        suite = hub.suites["demo"]
        for step, values, limit in ((300, DEMO, None), (100, DEMO | {"Sums": 10.0}, None), (200, DEMO, 5)):
            row = add_evaluation(session, suite, model=f"acme/step-{step}", values=values, limit=limit)
            series.add(session, row.id or 0, owner=0, name="r", step=step, now=NOON)
    whole, trial = sorted(client.get("/api/v1/series/r").json()["runs"], key=lambda run: run["limit"] or 0)
    assert [point["step"] for point in whole["points"]] == [100, 300]
    assert whole["points"][0]["benchmarks"]["Sums"][0] == 10.0
    assert [point["step"] for point in trial["points"]] == [200]
    titles = [line for line in evalyard("series", "r").out.splitlines() if line.startswith("demo")]
    assert sorted(titles) == ["demo 1, bfloat16", "demo 1, bfloat16, trial of 5"]
    page = client.get("/series/r").text
    assert page.index("acme/step-300") < page.index("acme/step-100")
    drawn = client.get(f"/series/r/picture.svg?run={whole['key']}")
    assert (drawn.status_code, "score by step" in drawn.text) == (200, True)
    problem(client.get("/api/v1/series/nowhere"), 404)
    assert client.get("/series/r/picture.svg?run=nonsense").status_code == 404
