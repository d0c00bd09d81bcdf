"""Re-runs as people meet them: pages, API and commands, empty, planned, running and switched."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from orchestrator import db
from orchestrator.artifacts import ArtifactStore
from orchestrator.lifecycle import RerunState
from orchestrator.tables import Evaluation
from submissions.cli.reruns import budget_seconds, coverage_share
from submissions.context import Hub
from tests.orchestrator.reruns.works import NEW, OLD, Sheet, Works
from tests.orchestrator.yard import Yard, make_suite
from tests.submissions.command import Command
from tests.submissions.conftest import ok, problem
from tests.submissions.factories import make_hub
from tests.submissions.pages import page

API = "/api/v1"


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    made = make_hub(tmp_path / "data")
    return replace(made, suites={**made.suites, "small": make_suite("ARC", "MMLU")})


@pytest.fixture
def works(hub: Hub) -> Works:
    return Works(Yard(hub.engine), ArtifactStore(hub.settings.artifacts_url))


def test_without_a_plan_page_and_command_say_how_to_begin(client: TestClient, evalyard: Command) -> None:
    assert "Nothing was planned yet" in page(client, "/reruns").text
    assert client.get(f"{API}/reruns").json() == []
    for words in (["list"], ["status"]):
        assert "rerun plan --suite" in evalyard("rerun", *words).out


def test_a_re_run_by_the_api_from_its_plan_to_the_switch_and_back(client: TestClient, works: Works) -> None:
    (old,) = works.finished(1)
    works.sheets[NEW, "ARC"] = Sheet(first=4)
    made = ok(client.post(f"{API}/reruns", json={"suite": "small", "harness": "0.4.14"})).json()
    assert made["rerun"]["state"] == "planning"
    assert (made["rerun"]["from_harness"], made["rerun"]["to_harness"]) == ("lm_eval 0.4.13", "lm_eval 0.4.14")
    works.go_on()
    ready = client.get(f"{API}/reruns/1").json()
    assert (ready["state"], ready["next_step"]) == ("ready", "evalyard rerun start 1")
    assert {one["benchmark"]: one["evaluations"] for one in ready["verdicts"]} == {
        "ARC": {"infer": 1},
        "MMLU": {"same": 1},
    }
    assert (ready["estimate"]["inferred"], ready["estimate"]["unmeasured"]) == (1, 1)
    ok(client.post(f"{API}/reruns/1/start", json={"first": "size", "budget_seconds": 3600}))
    works.go_on()
    done = client.get(f"{API}/reruns/1").json()
    assert (done["state"], done["progress"]["coverage"], done["is_shown"]) == ("finished", 1.0, False)
    board = client.get(f"{API}/board?suite=small&version={NEW.replace('+', '%2B')}").json()
    assert [row["evaluation"] for row in board["apart"]] == [works.again(old).id]
    assert "instead of 1" in ok(client.post(f"{API}/reruns/1/switch")).json()["message"]
    assert client.get(f"{API}/board?suite=small").json()["suite_version"] == NEW
    ok(client.post(f"{API}/suites/small/back"))
    assert client.get(f"{API}/board?suite=small").json()["suite_version"] == OLD
    versions = client.get(f"{API}/suites/small").json()["versions"]
    assert {one["version"]: (one["is_shown"], one["covered"]) for one in versions} == {
        OLD: (True, None),
        NEW: (False, 1),
    }


def test_pause_resume_and_abandon_by_the_api(client: TestClient, works: Works) -> None:
    works.finished(1)
    ok(client.post(f"{API}/reruns", json={"suite": "small", "harness": "0.4.14"}))
    assert ok(client.post(f"{API}/reruns/1/pause")).json()["rerun"]["state"] == "paused"
    assert "paused while it compared" in problem(client.post(f"{API}/reruns/1/start"), 409)["detail"]
    assert ok(client.post(f"{API}/reruns/1/resume")).json()["rerun"]["state"] == "planning"
    assert ok(client.post(f"{API}/reruns/1/abandon")).json()["rerun"]["state"] == "abandoned"
    assert problem(client.post(f"{API}/reruns/1/resume"), 409)
    assert problem(client.post(f"{API}/reruns/9/start"), 404)
    assert problem(client.post(f"{API}/reruns", json={"suite": "smal"}), 404)
    assert problem(client.get(f"{API}/board?suite=small&version=7"), 404)


def test_a_version_that_was_given_up_before_anything_was_scored_is_on_no_board(
    client: TestClient, works: Works
) -> None:
    works.finished(1)
    ok(client.post(f"{API}/reruns", json={"suite": "small", "harness": "0.4.14"}))
    plan = client.get(f"{API}/reruns/1").json()

    def versions() -> list[str]:
        return [one["version"] for one in client.get(f"{API}/suites/small").json()["versions"]]

    assert versions() == [plan["to_version"], plan["from_version"]]
    ok(client.post(f"{API}/reruns/1/abandon"))
    assert versions() == [plan["from_version"]]


def test_a_plans_page_shows_verdicts_costs_and_the_buttons_of_its_state(client: TestClient, works: Works) -> None:
    (old,) = works.finished(1)
    works.sheets[NEW, "ARC"] = Sheet(code="c2")
    plan = works.planned()
    found = page(client, f"/reruns/{plan}").text
    assert "Compared; nothing is started." in found
    assert "1 are only scored" in found
    assert "filters, metrics" in found
    answer = client.post(f"/reruns/{plan}/start", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/reruns/{plan}?said=start")
    works.go_on()
    assert works.read(plan).state is RerunState.FINISHED
    assert "100 % of the old averages" in page(client, f"/reruns/{plan}?said=start").text
    assert "1 of 1 average covered" in page(client, "/reruns").text
    ok(client.post(f"/reruns/{plan}/switch"))
    assert f"version {NEW}" in page(client, "/?suite=small").text
    ok(client.post(f"/reruns/{plan}/back"))
    assert f"version {OLD}" in page(client, "/?suite=small").text
    history = page(client, f"/evaluations/{old}")
    assert "Under every version" in history.text
    assert f"/evaluations/{works.again(old).id}#ARC" in history.links
    assert f"carried over from {old}" in page(client, f"/evaluations/{works.again(old).id}").text


def test_before_any_plan_the_example_names_a_harness_that_is_not_the_pinned_one(
    client: TestClient, evalyard: Command
) -> None:
    said = evalyard("rerun", "list").out + evalyard("rerun", "list").err + page(client, "/reruns").text
    assert said.count("rerun plan --suite open-llm-v2 --harness ") >= 2
    assert f"--harness {version('lm_eval')}" not in said


def test_where_there_is_nothing_to_do_it_is_said_in_words(client: TestClient, evalyard: Command, works: Works) -> None:
    works.finished(1)
    for name in ("ARC", "MMLU"):
        works.sheets[NEW, name] = Sheet(failure="The data set is gone.", kind="dataset")
    ok(client.post(f"{API}/reruns", json={"suite": "small", "harness": "0.4.14"}))
    works.go_on()
    plan = evalyard("rerun", "status", "1").out
    assert plan.count("1 unknown      nothing to compare") == 2
    shown = page(client, "/reruns/1").text
    assert shown.count("nothing to compare") == 2
    ok(client.post(f"{API}/reruns/1/start"))
    works.go_on()
    report = page(client, "/reruns/1/report").text + evalyard("rerun", "report", "1").out
    said = "No evaluation that counts is finished under the old version, so there is nothing to compare; the re-run is"
    assert report.count(said) == 2
    assert "0 of 0" not in plan + shown + report


def test_a_plan_of_evaluations_that_have_no_average_is_summed_up_in_words(client: TestClient, works: Works) -> None:
    (old,) = works.finished(1)
    with db.session(works.yard.engine) as session:
        session.get_one(Evaluation, old).average = None  # a benchmark of it could not be scored
    ok(client.post(f"{API}/reruns", json={"suite": "small", "harness": "0.4.14"}))
    works.go_on()
    assert client.get(f"{API}/reruns/1").json()["summary"] == "Compared; nothing is started. No average to cover."


def test_a_planned_evaluation_is_in_no_queue_and_says_what_it_waits_for(client: TestClient, works: Works) -> None:
    (old,) = works.finished(1)
    works.planned()
    again = works.again(old).id
    assert client.get(f"{API}/queue").json()["waiting"] == []
    found = client.get(f"{API}/evaluations/{again}").json()
    assert found["state"] == "planned"
    assert found["waiting_because"] == "Waits until re-run 1 is started: evalyard rerun start 1."
    assert "re-run 1 is started" in page(client, f"/evaluations/{again}").text


def test_the_commands_from_plan_to_back(evalyard: Command, works: Works) -> None:
    works.finished(1)
    planned = evalyard("rerun", "plan", "--suite", "small", "--harness", "0.4.14", "--no-wait")
    assert (planned.code, planned.out.startswith("Made re-run 1: small from version 1 to")) == (0, True)
    works.go_on()
    shown = evalyard("rerun", "status", "1")
    assert "1 same" in shown.out
    assert "1 evaluation: 1 carry over, 0 are only scored, 0 have new requests (0)." in shown.out
    assert "Next: evalyard rerun start 1" in shown.err
    started = evalyard(
        "rerun", "start", "1", "--first", "age", "--budget", "40gpu-hours", "--coverage", "98%", "--json"
    )
    assert started.json["rerun"]["budget_seconds"] == 144_000
    assert started.json["rerun"]["coverage_goal"] == 0.98
    works.go_on()
    assert "finished" in evalyard("rerun", "list").out
    # The coverage that was asked for has switched the board.
    assert evalyard("board", "--suite", "small", "--json").json["suite_version"] == NEW
    assert "shows version 1 now" in evalyard("rerun", "back", "1").out
    assert NEW in evalyard("board", "--suite", "small", "--suite-version", NEW, "--json").json["suite_version"]
    assert "shows version 1+lm_eval-0.4.14 now" in evalyard("rerun", "switch", "small", "--to", NEW).out
    assert NEW in evalyard("suites", "small").out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["plan", "--suite", "small", "--harness", "0.4.14"], 1, "No evaluation is finished"),
        (["plan", "--suite", "small", "--first", "luck"], 2, "none of rank, votes, age, size"),
        (["start", "1", "--budget", "much"], 2, "no device time"),
        (["start", "1", "--coverage", "most"], 2, "no coverage"),
        (["start", "1"], 1, "There is no re-run 1"),
        (["switch", "small"], 2, "or a suite with --to"),
        (["back", "small"], 1, "never shown another version"),
    ],
)
def test_mistakes_end_in_a_sentence_and_an_exit_code(
    evalyard: Command, works: Works, words: list[str], code: int, says: str
) -> None:
    ran = evalyard("rerun", *words)
    assert ran.code == code
    assert says in " ".join(ran.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("40gpu-hours", 144_000), ("1.5h", 5400), ("2 gpu-days", 172_800), ("90 minutes", 5400), ("3", 10_800), ("0", 0)],
)
def test_a_budget_is_device_time(text: str, seconds: int) -> None:
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize(("text", "share"), [("98%", 0.98), ("98", 0.98), ("0.9", 0.9), ("1", 1.0), ("0", 0.0)])
def test_a_coverage_is_a_share(text: str, share: float) -> None:
    assert coverage_share(text) == pytest.approx(share)
