"""An evaluation's page: how far, why not, what came of it and where it comes from."""

import re
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.tables import Job, Score
from orchestrator.wire import FailureKind, InferDone, Stage
from submissions.context import Hub
from tests.orchestrator.yard import ENGINE
from tests.submissions.factories import DEMO, add_attempt, add_evaluation, disturb
from tests.submissions.pages import Page, page


def test_a_waiting_evaluation_says_why_and_can_be_cancelled(client: TestClient, model: Path) -> None:
    client.post("/submit", data={"model": str(model), "suite": "demo"})
    found = client.get("/evaluations/1").text
    assert "No harness worker is connected" in found
    assert '<noscript><meta http-equiv="refresh"' in found
    cancelled = client.post("/evaluations/1/cancel")
    assert "The evaluation is cancelled" in cancelled.text
    assert "Cancel this evaluation" not in cancelled.text


def test_a_cancelled_submission_is_made_again_by_its_link(client: TestClient, model: Path) -> None:
    given = {"model": str(model), "suite": "demo", "precision": "float32", "model_type": "chat", "limit": "7"}
    client.post("/submit", data=given)
    client.post("/evaluations/1/cancel")
    link = next(link for link in page(client, "/evaluations/1").links if link.startswith("/submit?"))
    form = client.get(link).text
    kept = {facts["id"]: facts.get("value") for facts in Page(form).inputs}
    revision = client.get("/api/v1/evaluations/1").json()["revision"]
    assert (kept["model"], kept["revision"], kept["limit"]) == (str(model), revision, "7")
    chosen = set(re.findall(r'<option value="([\w-]+)" selected>', form))
    assert chosen == {"demo", "float32", "chat", "no", "original"}
    again = client.post("/submit", data=dict(parse_qsl(link.partition("?")[2])))
    assert str(again.url).endswith("/evaluations/2")
    first, second = (client.get(f"/api/v1/evaluations/{number}").json() for number in (1, 2))
    same = ("model", "folder", "revision", "precision", "model_type", "chat_template", "limit", "suite")
    assert [first[name] for name in same] == [second[name] for name in same]


def test_a_cancelled_adapter_of_a_mirror_is_submitted_again_on_its_base(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(
            session,
            hub.suites["demo"],
            model="acme/lora",
            state=EvaluationState.CANCELLED,
            sentence="Stopped.",
            folder="/models/acme/lora",
            weight_type="adapter",
            base_model="base",
            base_folder="/somewhere/base",
            base_revision="sha256-b",
            chat_template=True,
        )
    link = next(link for link in page(client, "/evaluations/1").links if link.startswith("/submit?"))
    found = dict(parse_qsl(link.partition("?")[2]))
    assert (found["model"], found["base_model"], found["base_revision"]) == ("acme/lora", "/somewhere/base", "sha256-b")
    assert (found["weight_type"], found["chat_template"]) == ("adapter", "yes")


def test_an_evaluation_whose_infer_job_no_worker_has_is_waiting_everywhere(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], model="acme/moves", state=EvaluationState.RUNNING, requests=(1, 4))
        add_evaluation(session, hub.suites["demo"], model="acme/waits", state=EvaluationState.RUNNING, waits=True)
    queue = page(client, "/queue").text
    assert "1 running, 1 waiting" in queue
    assert queue.index("acme/moves") < queue.index(" Waiting ") < queue.index("acme/waits")
    assert "Running 1 Waiting 1" in page(client, "/submit").text
    waits = client.get("/evaluations/2").text
    assert '<span class="badge waiting">waiting</span>' in waits
    assert "No vllm engine worker is connected" in waits
    assert '<span class="badge running">running</span>' in client.get("/evaluations/1").text


def test_what_failed_is_not_counted_as_prepared_or_scored(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        for number, state in enumerate((EvaluationState.PREPARING, EvaluationState.SCORING), start=1):
            add_evaluation(session, hub.suites["demo"], model=f"acme/m{number}", state=state)
        for job in session.exec(select(Job).where(Job.benchmark == "Sums")):
            job.state, job.failure, job.sentence = JobState.FAILED, FailureKind.DATASET, "It is missing."
            session.add(job)
    assert "0 of 3 benchmarks prepared, 1 failed (0 %)" in page(client, "/evaluations/1").text
    assert "0 of 3 benchmarks scored, 1 failed (0 %)" in page(client, "/evaluations/2").text


def test_a_failed_evaluation_says_why_what_next_and_shows_the_log(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(
            session,
            hub.suites["demo"],
            state=EvaluationState.FAILED,
            failure=FailureKind.OUT_OF_MEMORY,
            sentence="The weights need 20 GB and the device has 8 GB.",
            log_tail="torch.OutOfMemoryError <b>",
        )
    found = page(client, "/evaluations/1").text
    assert "It failed: out of memory" in found
    assert "The weights need 20 GB and the device has 8 GB." in found
    assert "Next: Retry on a worker with more memory" in found
    assert "torch.OutOfMemoryError <b>" in found
    assert "Retry what failed" in found
    assert "The weights need 20 GB" in page(client, "/queue").text
    assert found.count("The weights need 20 GB and the device has 8 GB.") <= 3
    assert "Why Letters, Stories, Sums have no score (out of memory)" in found


def test_a_finished_evaluation_links_every_score_to_its_evidence(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    found = page(client, "/evaluations/1")
    assert "Average60.00" in found.text.replace(" ", "")
    assert {f"/evaluations/1/samples/{name}" for name in DEMO} <= set(found.links)
    assert "lm eval version 0.4.13" in found.text
    assert "lm_eval run --model vllm" in found.text


def test_an_evaluation_without_one_benchmark_says_so_and_can_be_retried(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(
            session, hub.suites["demo"], values={"Letters": 1.0, "Stories": 2.0}, sentence="No score for Sums."
        )
    found = page(client, "/evaluations/1").text
    assert "No score for Sums." in found
    assert "The dataset of Sums is missing." in found
    assert "Retry what failed" in found


def test_provenance_is_words_and_no_dump(hub: Hub, client: TestClient) -> None:
    provenance = {
        "seed": None, "truncated": False, "gen_kwargs": {}, "identity": {"base": None, "quantised": True},
        "attempts": [{"worker": "engine-1", "ended_at": None}, {"worker": "engine-2"}],
    }  # fmt: skip
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
        for score in session.exec(select(Score).where(Score.metric == "value")):
            score.provenance = provenance
            session.add(score)
    found = page(client, "/evaluations/1").text
    assert "attempts worker engine-1 ended_at none worker engine-2 gen kwargs none" in found
    assert "gen kwargs none identity base none quantised yes seed none truncated no" in found
    assert "False" not in found


def test_an_unfinished_evaluation_is_not_spoken_of_as_done(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], state=EvaluationState.RUNNING)
        add_evaluation(session, hub.suites["demo"], model="acme/done", values=DEMO)
    assert "What is evaluated" in page(client, "/evaluations/1").text
    assert "What was evaluated" in page(client, "/evaluations/2").text


def test_a_missing_evaluations_page_leads_on_by_links(client: TestClient) -> None:
    found = page(client, "/evaluations/9", status=404)
    assert "There is no evaluation 9." in found.text
    assert "evalyard " not in found.text
    assert {"/", "/queue"} <= set(found.links)


def test_attempts_that_died_and_engines_started_again_are_shown_with_what_they_used(
    hub: Hub, client: TestClient
) -> None:
    with hub.writing() as session:
        disturb(session, add_evaluation(session, hub.suites["demo"], state=EvaluationState.RUNNING).id or 0)
    found = page(client, "/evaluations/1").text
    assert "Engine time 3 min, 2,400 tokens computed and 68 reused; devices were held for 3 min." in found
    assert (
        "Inference took 2 attempts (1 released, 1 running), and an engine was started again once within one." in found
    )
    assert "Attempts at infer (2)" in found
    assert "released The GPU is wanted. The engine was killed. Starting it again." in found
    assert found.index("engine-1") < found.index("engine-2")


def test_an_evaluation_that_nothing_disturbed_has_no_list_of_attempts(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        number = add_evaluation(session, hub.suites["demo"], values=DEMO).id
        infer = session.exec(select(Job).where(Job.evaluation_id == number, Job.stage == Stage.INFER)).one()
        add_attempt(session, infer, minutes=2)
    found = page(client, "/evaluations/1").text
    assert "devices were held for 2 min" in found
    assert "Attempts at" not in found


@pytest.mark.parametrize(
    ("folder", "model", "said"),
    [
        ("/models/tiny", "tiny", "Put complete safetensors weights with their index into the folder"),
        ("/mirror/acme/tiny", "acme/tiny", "submit the new commit"),
        (None, "acme/tiny", "submit the new commit"),
    ],
)
def test_of_a_local_folder_no_commit_is_spoken_of(
    hub: Hub, client: TestClient, folder: str | None, model: str, said: str
) -> None:
    with hub.writing() as session:
        failed = {"state": EvaluationState.FAILED, "failure": FailureKind.WEIGHTS, "sentence": "A file is damaged."}
        add_evaluation(session, hub.suites["demo"], model=model, folder=folder, **failed)
    assert page(client, "/evaluations/1").text.count(said) == 2


def test_responses_that_were_there_already_are_told(hub: Hub, client: TestClient) -> None:
    spent = {"seconds": 2.0, "total_seconds": 3.0, "tokens_computed": 100, "tokens_reused": 0}
    done = InferDone(computed=1, reused=62, engine=ENGINE, **spent)
    with hub.writing() as session:
        evaluation = add_evaluation(session, hub.suites["demo"], values=DEMO)
        infer = session.exec(select(Job).where(Job.evaluation_id == evaluation.id, Job.stage == Stage.INFER)).one()
        infer.result, infer.attempt_id = done.model_dump(mode="json"), add_attempt(session, infer).id
        session.add(infer)
    assert "62 of 63 responses were there already." in page(client, "/evaluations/1").text
