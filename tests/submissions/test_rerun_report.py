"""What a re-run changed, as page, API and command; and what asks for a re-run."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from orchestrator.lifecycle import RerunState
from orchestrator.suite_versions import add_version
from orchestrator.tables import Rerun, RerunBenchmark
from submissions.context import Hub
from tests.submissions.command import Command
from tests.submissions.conftest import problem
from tests.submissions.factories import DEMO, NOON, add_evaluation, add_worker, choice_sample, keep_samples
from tests.submissions.pages import page

HOSTILE = '=cmd|"<script>alert(1)</script>'


@pytest.fixture
def rerun(hub: Hub) -> int:
    """Two models under both versions of the demo; the first gained 9 in Letters by another reading of its answers."""
    old = hub.suites["demo"]
    new = old.model_copy(update={"version": "2", "harness": "lm_eval 0.5"})
    with hub.writing() as session:
        add_version(session, new, now=NOON)
        for model, letters in (("acme/gained", 89.0), (HOSTILE, 80.0)):
            before = add_evaluation(session, old, model=model, values=DEMO)
            after = add_evaluation(session, new, model=model, values=DEMO | {"Letters": letters})
            after.submission_id, after.rerun_of = before.submission_id, before.id
            session.add(after)
        plan = Rerun(
            suite="demo",
            from_version=old.version,
            to_version="2",
            state=RerunState.FINISHED,
            made_at=NOON,
            ended_at=NOON,
        )
        session.add(plan)
        session.flush()
        assert plan.id is not None
        session.add(
            RerunBenchmark(
                rerun_id=plan.id,
                sheet_class="c",
                benchmark="Letters",
                evaluation_id=1,
                evaluations=2,
                verdict="score",
                sentence="A filter's <b>pattern</b> changed.",
            )
        )
    return plan.id


def test_the_page_shows_shifts_movers_ranks_and_leads_to_the_samples(hub: Hub, client: TestClient, rerun: int) -> None:
    keep_samples(hub, 1, "Letters", task="demo_letters", records=[choice_sample(0, right=False)])
    keep_samples(hub, 2, "Letters", task="demo_letters", records=[choice_sample(0)])
    found = page(client, f"/reruns/{rerun}/report")
    assert "2 of 2 finished evaluations are compared" in found.text
    # Differences of the average 3 and 0: mean 1.5, standard error 1.5, t(1) = 12.706.
    assert "Average 2 1 60.00 61.50 +1.50 −17.56 to +20.56" in found.text
    assert "Letters score 2 1 80.00 84.50 +4.50" in found.text
    assert "acme/gained Letters 80.00 to 89.00 +9.00" in found.text
    assert "A filter's <b>pattern</b> changed." in found.text
    samples = next(link for link in found.links if link.startswith("/diff?a=1&b=2&benchmark=Letters"))
    assert "Document 0 wrong → right" in page(client, samples).text
    assert "<script>" not in client.get(f"/reruns/{rerun}/report").text


def test_the_api_gives_three_forms_of_one_record(client: TestClient, rerun: int) -> None:
    record = client.get(f"/api/v1/reruns/{rerun}/report").json()
    table = client.get(f"/api/v1/reruns/{rerun}/report?format=csv")
    text = client.get(f"/api/v1/reruns/{rerun}/report?format=md")
    assert (record["compared"], record["average"]["shift"]) == (2, pytest.approx(1.5))
    assert table.headers["content-type"].startswith("text/csv")
    assert f'filename="rerun-{rerun}.csv"' in table.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert len(rows) == 2 * 4
    assert {row["model"] for row in rows} == {"acme/gained", "'" + HOSTILE}
    assert "| Letters | 2 | 1 | 80.00 | 84.50 | +4.50 |" in text.text


def test_a_report_of_nothing_says_what_to_do(client: TestClient, hub: Hub) -> None:
    assert "There is no re-run 9" in problem(client.get("/api/v1/reruns/9/report"), 404)["detail"]
    assert client.get("/reruns/9/report").status_code == 404
    with hub.writing() as session:
        session.add(Rerun(suite="demo", from_version="1", to_version="never", made_at=NOON))
    assert "was never recorded" in problem(client.get("/api/v1/reruns/1/report"), 404)["detail"]


def test_the_command_prints_markdown_and_writes_csv(evalyard: Command, rerun: int, tmp_path: Path) -> None:
    assert "# Re-run" in evalyard("rerun", "report", str(rerun)).out
    assert json.loads(evalyard("rerun", "report", str(rerun), "--format", "json").out)["rerun"] == rerun
    file = tmp_path / "report.csv"
    said = evalyard("rerun", "report", str(rerun), "--format", "csv", "--output", str(file))
    assert "Wrote" in said.err
    assert file.read_bytes().count(b"\r\n") == 9


def test_a_newer_harness_that_no_plan_answers_is_a_line_of_page_and_list(
    hub: Hub, client: TestClient, evalyard: Command
) -> None:
    now = datetime.now(UTC) - timedelta(seconds=1)
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
        add_worker(session, "harness-1", kind="harness", now=now, harnesses=["lm_eval 9.1"])
    assert "lm_eval 9.1 is installed" in page(client, "/reruns").text
    said = evalyard("rerun", "list")
    assert "rerun plan --suite demo --harness 9.1" in said.err
    (change,) = client.get("/api/v1/changes").json()
    assert (change["kind"], change["suite"]) == ("harness", "demo")
