"""The API: what it answers, what it refuses and how, and that no foreign page can use it."""

import csv
import io
import logging
import sqlite3
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import select
from starlette.testclient import TestClient

from orchestrator import db
from orchestrator.lifecycle import EvaluationState
from orchestrator.tables import Job
from orchestrator.wire import FailureKind
from submissions import samples
from submissions.context import Hub
from submissions.people.permits import ROUTES
from submissions.problems import DATABASE_AWAY
from submissions.request import SubmissionRequest
from submissions.site import make_site
from tests.hub_stub import HubStub
from tests.submissions.conftest import problem
from tests.submissions.factories import DEMO, add_evaluation, add_worker, choice_sample, disturb, keep_samples, make_hub
from tests.submissions.people.browser import SITE


def test_a_submission_is_queued_and_a_second_one_is_told_of_it(client: TestClient, model: Path) -> None:
    first = client.post("/api/v1/evaluations", json={"model": str(model), "suite": "demo"})
    assert first.status_code == 201
    assert first.headers["location"] == "/api/v1/evaluations/1"
    assert first.json()["message"] == "Queued evaluation 1."
    second = client.post("/api/v1/evaluations", json={"model": str(model), "suite": "demo"})
    assert second.status_code == 200
    assert second.json()["existing"] is True
    assert second.json()["message"] == "Evaluation 1 is the same and is queued."
    third = client.post("/api/v1/evaluations", json={"model": str(model), "suite": "demo", "limit": 2})
    assert third.json()["message"] == "Queued evaluation 2 (1 ahead)."


def test_every_fault_is_listed_with_its_field_and_class(client: TestClient, model: Path) -> None:
    (model / "tokenizer.json").unlink()
    answer = client.post("/api/v1/evaluations", json={"model": str(model), "suite": "dmo"})
    faults = problem(answer, 422)["faults"]
    assert [(fault["field"], fault["kind"]) for fault in faults] == [("suite", None), ("model", "tokenizer")]
    assert client.get("/api/v1/evaluations").json()["evaluations"] == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": "x", "colour": "red"}, "There is no field 'colour'."),
        ({}, "The field 'model' is missing."),
        ({"model": ""}, "model: "),
        ({"model": "x", "limit": 0}, "limit: 0 is too small; the least is 1."),
        ({"model": "x", "limit": "many"}, "limit: 'many' is no whole number."),
        ({"model": "x", "precision": "int3"}, "precision: 'int3' is none of auto, bfloat16, "),
        ({"model": "x", "precision": "fp16"}, "gptq. Did you mean 'float16'?"),
        ({"model": "x", "model_type": "nice"}, "model_type: 'nice' is not one of 'pretrained', "),
        ([1], "request: the body is no JSON object, or not sent as `Content-Type: application/json`."),
    ],
)
def test_a_malformed_request_is_told_which_field(client: TestClient, content: Any, words: str) -> None:
    found = problem(client.post("/api/v1/evaluations", json=content), 422)
    assert words in found["detail"]
    assert len(found["faults"]) == 1


def test_a_body_that_is_no_json_is_a_problem(client: TestClient) -> None:
    answer = client.post("/api/v1/evaluations", content=b"{", headers={"content-type": "application/json"})
    assert problem(answer, 422)["detail"] == "The request's body is not valid JSON."


def test_a_database_that_is_away_is_a_503_that_tells_nobody_where_it_lies(client: TestClient, hub: Hub) -> None:
    lies_in = hub.settings.data
    hub.engine.dispose()
    lies_in.rename(lies_in.with_name("unmounted"))
    told = problem(client.get("/api/v1/evaluations"), 503)["detail"]
    page = client.get("/queue")
    assert "database" in told
    assert (page.status_code, told in unescape(page.text)) == (503, True)
    assert str(lies_in) not in told + page.text


def test_a_database_with_more_to_do_than_it_can_take_is_a_503_that_says_when_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(db, "BUSY_SECONDS", 0.1)
    hub = make_hub(tmp_path / "data")
    hub.engine.pool._timeout = 0.1  # type: ignore[attr-defined]  # half a minute is long for a test
    with ExitStack() as held:
        client = held.enter_context(TestClient(make_site(hub), base_url=SITE, raise_server_exceptions=False))
        writer = held.enter_context(closing(sqlite3.connect(hub.settings.data / "evalyard.db", isolation_level=None)))
        writer.execute("BEGIN IMMEDIATE")
        answers = [client.post("/api/v1/evaluations/1/cancel")]
        for _ in range(15):  # all that the pool has
            held.enter_context(closing(hub.engine.raw_connection()))
        answers += [client.get("/api/v1/evaluations"), client.get("/queue")]
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in answers] == [(503, "60")] * 3
    assert [problem(answer, 503)["detail"] for answer in answers[:2]] == [DATABASE_AWAY] * 2
    assert "<h1>" in answers[2].text
    logged = [record.message.partition(" ")[0] for record in caplog.records if record.levelno >= logging.WARNING]
    assert (logged, [record.exc_info for record in caplog.records if record.exc_info]) == (["database_busy"] * 3, [])


def test_a_hub_in_trouble_is_a_503_that_says_when_to_come_back(client: TestClient, hf_hub: HubStub) -> None:
    hf_hub.status = 429
    answer = client.post("/api/v1/evaluations", json={"model": "acme/tiny", "suite": "demo"})
    assert "The Hub asks us to wait (429)" in problem(answer, 503)["detail"]
    assert answer.headers["retry-after"] == "60"


@pytest.mark.parametrize(
    "path",
    ["/evaluations/7", "/evaluations/7/reproduce", "/evaluations/7/samples/Letters", "/suites/none", "/board?suite=no"],
)
def test_what_is_not_there_is_a_404_with_a_sentence(client: TestClient, path: str) -> None:
    assert problem(client.get(f"/api/v1{path}"), 404)["detail"].startswith(("There is no", "Evaluation 7 has no"))


def test_a_detail_has_scores_provenance_and_jobs(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        number = add_evaluation(session, hub.suites["demo"], values=DEMO).id
    detail = client.get(f"/api/v1/evaluations/{number}").json()
    assert (detail["state"], detail["average"], detail["ahead"]) == ("finished", 60.0, None)
    letters = detail["benchmarks"][0]
    assert (letters["name"], letters["value"], letters["raw"], letters["stderr"]) == ("Letters", 80.0, 84.0, 1.0)
    assert letters["scores"][0]["task"] == "task_letters"
    assert letters["provenance"]["lm_eval_version"] == "0.4.13"
    assert [event["name"] for event in detail["events"]] == ["evaluation_created"]
    assert len(detail["jobs"]) == 7


def test_a_running_evaluation_says_how_far_it_is(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], state=EvaluationState.RUNNING, requests=(30, 120))
    progress = client.get("/api/v1/evaluations/1").json()["progress"]
    assert progress == {"done": 30, "total": 120, "text": "30 of 120 requests answered"}


def test_a_detail_has_every_attempt_and_adds_up_their_cost(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        disturb(session, add_evaluation(session, hub.suites["demo"], state=EvaluationState.RUNNING).id or 0)
    detail = client.get("/api/v1/evaluations/1").json()
    cost = detail["cost"]
    assert (cost["seconds"], cost["tokens_computed"], cost["computed"], cost["device_seconds"]) == (180, 2400, 14, 180)
    assert (cost["earlier_attempts"], cost["restarts"]) == (1, ["The engine was killed. Starting it again."])
    (infer,) = [job for job in detail["jobs"] if job["stage"] == "infer"]
    assert [(one["worker"], one["outcome"], one["sentence"]) for one in infer["history"]] == [
        ("engine-1", "released", "The GPU is wanted."),
        ("engine-2", "", ""),
    ]


def test_a_failure_has_class_sentence_next_step_and_log(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(
            session,
            hub.suites["demo"],
            state=EvaluationState.FAILED,
            failure=FailureKind.INVALID_OUTPUT,
            sentence="All answers are NaN.",
            log_tail="nan",
        )
    detail = client.get("/api/v1/evaluations/1").json()
    assert (detail["failure"], detail["sentence"]) == ("invalid_output", "All answers are NaN.")
    assert detail["next_step"].startswith("Check the weights and the precision")
    assert detail["benchmarks"][0]["log_tail"] == "nan"


def test_cancel_and_retry_move_the_evaluation_or_say_why_not(client: TestClient, model: Path) -> None:
    client.post("/api/v1/evaluations", json={"model": str(model), "suite": "demo"})
    assert "queued" in problem(client.post("/api/v1/evaluations/1/retry"), 409)["detail"]
    answer = client.post("/api/v1/evaluations/1/cancel").json()
    assert answer["evaluation"]["state"] == "cancelled"
    problem(client.post("/api/v1/evaluations/1/cancel"), 409)


def test_a_boost_changes_the_place_in_the_queue_until_it_is_taken_back(
    hub: Hub, client: TestClient, model: Path
) -> None:
    def turns() -> set[datetime]:
        with hub.reading() as session:
            return {job.turn_at for job in session.exec(select(Job)) if job.turn_at}

    client.post("/api/v1/evaluations", json={"model": str(model), "suite": "demo"})
    (before,) = turns()
    answer = client.post("/api/v1/evaluations/1/boost?days=2").json()
    assert answer["message"] == "Evaluation 1 counts as made 2 days earlier."
    assert turns() == {before - timedelta(days=2)}
    assert client.post("/api/v1/evaluations/1/boost?days=-1").json()["message"].endswith("made 1 day later.")
    assert client.post("/api/v1/evaluations/1/boost?days=0").json()["message"].endswith("counts as made when it was.")
    assert turns() == {before}
    problem(client.post("/api/v1/evaluations/1/boost?days=31"), 422)
    problem(client.post("/api/v1/evaluations/9/boost"), 404)
    client.post("/api/v1/evaluations/1/cancel")
    problem(client.post("/api/v1/evaluations/1/boost"), 409)


def test_lists_are_paged_and_filtered(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        for number in range(5):
            add_evaluation(session, hub.suites["demo"], model=f"acme/m{number}", values=DEMO)
    first = client.get("/api/v1/evaluations?limit=2").json()
    assert [row["id"] for row in first["evaluations"]] == [5, 4]
    rest = client.get(f"/api/v1/evaluations?limit=9&before={first['next_before']}").json()
    assert [row["id"] for row in rest["evaluations"]] == [3, 2, 1]
    assert rest["next_before"] is None
    assert client.get("/api/v1/evaluations?state=failed").json()["evaluations"] == []
    assert [row["id"] for row in client.get("/api/v1/evaluations?model=acme/m2").json()["evaluations"]] == [3]
    for path in ("/api/v1/evaluations", "/api/v1/evaluations/1/samples/Letters"):
        assert "the most is 200" in problem(client.get(path, params={"limit": 201}), 422)["detail"]


def test_the_queue_says_who_waits_and_for_what(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        for name in ("acme/first", "acme/second"):
            add_evaluation(session, hub.suites["demo"], model=name, state=EvaluationState.QUEUED)
        add_worker(session, "w1", kind="harness", now=datetime(2020, 1, 1, tzinfo=UTC))
    queue = client.get("/api/v1/queue").json()
    assert [row["ahead"] for row in queue["waiting"]] == [0, 1]
    assert queue["waiting"][0]["waiting_because"].startswith("No harness worker is connected")
    assert [(worker["name"], worker["is_up"]) for worker in queue["workers"]] == [("w1", False)]
    with hub.writing() as session:
        add_worker(session, "w2", kind="harness", now=datetime.now(UTC))
        # Reasons are kept for seconds while nothing happens.
        add_evaluation(session, hub.suites["demo"], model="acme/third", state=EvaluationState.QUEUED)
    assert client.get("/api/v1/queue").json()["waiting"][1]["waiting_because"] == "2nd; for the harness worker."
    jobs = client.get("/api/v1/evaluations/2").json()["jobs"]
    assert {job["state"]: job["waiting_because"] for job in jobs} == {
        "queued": "2nd; for the harness worker.",
        "blocked": "",
    }


def test_the_board_is_the_same_as_json_and_csv(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], model="acme/low", values={**DEMO, "Sums": 10.0})
        add_evaluation(session, hub.suites["demo"], model="=cmd|'/c calc'!A1", values=DEMO)
        add_evaluation(session, hub.suites["demo"], model="acme/trial", values=DEMO, limit=2)
    board = client.get("/api/v1/board?suite=demo").json()
    assert [(row["rank"], row["average"]) for row in board["ranked"]] == [(1, 60.0), (2, 50.0)]
    assert [row["apart_because"] for row in board["apart"]] == ["A trial: at most 2 documents of each task."]
    answer = client.get("/api/v1/board?suite=demo&format=csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="board-demo.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["rank"], row["average"], row["Sums"]) for row in rows] == [
        ("1", "60.0", "40.0"),
        ("2", "50.0", "10.0"),
        ("", "60.0", "40.0"),
    ]
    assert rows[0]["model"] == "'=cmd|'/c calc'!A1"


@pytest.mark.parametrize("empty", ["type=", "precision=&type=", "suite=&smallest=&largest=", "type=&type=pretrained"])
def test_an_empty_choice_of_the_board_filters_nothing(hub: Hub, client: TestClient, empty: str) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO, model_type="pretrained")
    assert len(client.get(f"/api/v1/board?{empty}").json()["ranked"]) == 1
    everything = client.get("/api/v1/evaluations?state=&suite=&model=&before=").json()["evaluations"]
    assert len(everything) == 1
    problem(client.get("/api/v1/board?type=nice"), 422)


def test_samples_are_paged_from_the_artifact_store(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    records = [choice_sample(number) for number in range(5)]
    keep_samples(hub, 1, "Letters", task="demo_letters", records=records)
    page = client.get("/api/v1/evaluations/1/samples/Letters?offset=1&limit=3").json()
    assert (page["task"], page["tasks"], page["next_offset"]) == ("demo_letters", ["demo_letters"], 4)
    assert page["records"] == records[1:4]
    assert client.get("/api/v1/evaluations/1/samples/Letters?offset=4").json()["next_offset"] is None
    for task in ("../../../evalyard", "%2e%2e%2fx", "none"):
        problem(client.get(f"/api/v1/evaluations/1/samples/Letters?task={task}"), 404)
    problem(client.get("/api/v1/evaluations/1/samples/Stories"), 404)


def test_a_page_of_long_records_ends_early_and_says_where_to_go_on(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    long = "x" * (samples.PAGE_BYTES // 3)
    keep_samples(hub, 1, "Letters", task="t", records=[{"doc_id": n, "doc": {"q": long}} for n in range(5)])
    address = "/api/v1/evaluations/1/samples/Letters?limit=200&offset="
    pages = [client.get(address + str(offset)).json() for offset in (0, 2, 4)]
    assert [[record["doc_id"] for record in page["records"]] for page in pages] == [[0, 1], [2, 3], [4]]
    assert [page["next_offset"] for page in pages] == [2, 4, None]


def test_a_record_of_any_size_is_never_read_whole(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    keep_samples(hub, 1, "Letters", task="t", records=[{"doc": "x" * samples.LINE_BYTES}])
    assert "larger than" in problem(client.get("/api/v1/evaluations/1/samples/Letters"), 422)["detail"]


def test_a_form_of_many_fields_and_a_zero_in_an_address_are_refused(client: TestClient) -> None:
    answer = client.post("/submit", content="a=1&" * 200, headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 422
    assert "more than 30 fields" in answer.text
    for address in ("/api/v1/evaluations?model=a%00b", "/api/v1/evaluations/1/samples/a%00b", "/?suite=%00"):
        assert "zero character" in problem(client.get(address), 400)["detail"]


def test_health_needs_the_database_alone(client: TestClient) -> None:
    assert client.get("/api/v1/health").json()["ok"] is True


def test_the_description_names_every_operation(client: TestClient) -> None:
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    operations = {f"{method} {path.removeprefix('/api/v1')}" for path, found in paths.items() for method in found}
    routes = [name.split(" ") for name in ROUTES]
    named = {f"{method.lower()} {path.removeprefix('/api/v1')}" for method, path in routes if path.startswith("/api/")}
    assert operations == named - {"get /docs", "get /openapi.json"}


def test_the_body_of_a_submission_is_described_field_by_field(client: TestClient) -> None:
    schema = client.get("/api/v1/openapi.json").json()
    body = schema["paths"]["/api/v1/evaluations"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fields = schema["components"]["schemas"][body["$ref"].rpartition("/")[2]]["properties"]
    assert set(fields) == set(SubmissionRequest.model_fields)
    assert [name for name, field in fields.items() if not field.get("description")] == []
    shown = client.get("/api/v1/docs").text
    assert all(f"<dt><code>{name}</code></dt>" in shown for name in fields)
    assert "one of auto, bfloat16, " in shown
    assert "string, required. Hub id, or the absolute path of a folder" in shown


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=60), path=st.sampled_from(["samples", "suites", "board", "query"]))
def test_no_name_makes_a_server_error(client: TestClient, name: str, path: str) -> None:
    word = quote(name, safe="")
    address = {
        "samples": f"/api/v1/evaluations/1/samples/{word}",
        "suites": f"/suites/{word}",
        "board": f"/?suite={word}&sort={word}&q={word}&min={word}",
        "query": f"/api/v1/board?search={word}&sort={word}",
    }[path]
    assert client.get(address).status_code < 500
    answer = client.post("/api/v1/evaluations", json={"model": f"/nowhere/{name}", "suite": name[:90] or "demo"})
    assert answer.status_code == 422
