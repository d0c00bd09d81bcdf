"""Workers as operators see them, and what operators tell them: API, command line and page."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from orchestrator.errors import next_step
from orchestrator.lifecycle import EvaluationState
from orchestrator.tables import Job, Submission, Worker
from orchestrator.wire import FailureKind, Gpu, GpuState, Mode, Stage
from submissions.context import Hub
from tests.submissions.command import Command
from tests.submissions.factories import add_attempt, add_evaluation, add_worker
from tests.submissions.pages import page

BUSY = "busy: another user's process 4211 holds 31 GB"


def add_gpu_worker(hub: Hub, name: str = "gpu-7", *, away: bool = False, **facts: Any) -> None:
    gpus = [
        Gpu(index=0, state=GpuState.BUSY, sentence=BUSY),
        Gpu(index=1, state=GpuState.WAITING, sentence="idle for 3 of 5 minutes"),
    ]
    now = datetime.now(UTC) - timedelta(hours=1 if away else 0)
    told = {"gpus": [gpu.model_dump(mode="json") for gpu in gpus], "sentence": "none of its 2 GPUs may be used now"}
    with hub.writing() as session:
        add_worker(session, name, kind="engine", now=now, **(told | facts))


def mode_of(hub: Hub, name: str) -> Mode:
    with hub.reading() as session:
        return session.exec(select(Worker).where(Worker.name == name)).one().mode


def test_the_queue_says_of_each_gpu_how_it_stands(hub: Hub, client: TestClient) -> None:
    add_gpu_worker(hub)
    (worker,) = client.get("/api/v1/queue").json()["workers"]
    assert [(gpu["index"], gpu["state"], gpu["sentence"]) for gpu in worker["gpus"]] == [
        (0, "busy", BUSY),
        (1, "waiting", "idle for 3 of 5 minutes"),
    ]
    text = page(client, "/queue").text
    for said in ("GPU 0: busy: another user", "GPU 1: idle for 3 of 5 minutes", "none of its 2 GPUs may be used now"):
        assert said in text


def test_the_queue_says_that_a_worker_stops_and_what_to_do_about_a_failure(hub: Hub, evalyard: Command) -> None:
    add_gpu_worker(hub, stopping=True)
    with hub.writing() as session:
        failed = {"state": EvaluationState.FAILED, "failure": FailureKind.NODE_LOST, "sentence": "gpu-7 was lost."}
        add_evaluation(session, hub.suites["demo"], model="acme/lost", **failed)
    told = evalyard("queue").out
    assert ": up, stopping, none of its 2 GPUs may be used now" in told
    assert f"acme/lost: gpu-7 was lost. {next_step(FailureKind.NODE_LOST)}\n" in told


def test_of_a_worker_that_is_down_the_queue_says_when_it_was_heard_of_and_nothing_that_is_no_longer_so(
    hub: Hub, evalyard: Command
) -> None:
    add_gpu_worker(hub, away=True)
    (line,) = (line for line in evalyard("queue").out.splitlines() if "gpu-7" in line)
    assert line.endswith(": down, last heard of 60 min ago")
    assert "free to use" not in line


@pytest.mark.parametrize(
    ("action", "mode", "said"),
    [
        ("drain", Mode.DRAINED, "Worker gpu-7 is drained: it ends what it runs and takes nothing new."),
        (
            "pause",
            Mode.PAUSED,
            "Worker gpu-7 is paused: it gives back what it runs, within its grace, and takes nothing new.",
        ),
        ("resume", Mode.OPEN, "Worker gpu-7 works again."),
    ],
)
def test_an_operator_drains_pauses_and_resumes_a_worker(
    hub: Hub, client: TestClient, action: str, mode: Mode, said: str
) -> None:
    add_gpu_worker(hub, slots=2, mode=Mode.PAUSED if action == "resume" else Mode.OPEN)
    answer = client.post(f"/api/v1/workers/gpu-7/{action}").json()
    assert (answer["message"], answer["worker"]["mode"]) == (said, mode.value)
    assert answer["worker"]["slots"] == (2 if mode is Mode.OPEN else 0)
    assert mode_of(hub, "gpu-7") is mode


def test_a_worker_that_is_away_hears_of_it_later(hub: Hub, client: TestClient) -> None:
    add_gpu_worker(hub, away=True)
    assert "hears of it when it comes back" in client.post("/api/v1/workers/gpu-7/pause").json()["message"]


@pytest.mark.parametrize("path", ["gpu-9/pause", "gpu-7/explode", f"{'x' * 200}/pause", "%3Cscript%3E/pause"])
def test_no_such_worker_or_action_is_refused_and_changes_nothing(hub: Hub, client: TestClient, path: str) -> None:
    add_gpu_worker(hub)
    answer = client.post(f"/api/v1/workers/{path}")
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert mode_of(hub, "gpu-7") is Mode.OPEN


def test_a_page_of_another_site_cannot_pause_a_worker(hub: Hub, client: TestClient) -> None:
    add_gpu_worker(hub)
    answer = client.post("/api/v1/workers/gpu-7/pause", headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert mode_of(hub, "gpu-7") is Mode.OPEN


def test_the_command_says_what_happened_and_the_queue_shows_it(hub: Hub, evalyard: Command) -> None:
    add_gpu_worker(hub)
    ran = evalyard("worker", "pause", "gpu-7")
    assert (ran.code, ran.out.splitlines()[0].startswith("Worker gpu-7 is paused")) == (0, True)
    listed = evalyard("queue").out
    assert "gpu-7 (engine): up, paused by an operator\n    Since 20" in listed
    assert "worker resume gpu-7\n" in listed
    assert f"    GPU 0: {BUSY}" in listed
    unknown = evalyard("worker", "pause", "gpu-9")
    assert (unknown.code, unknown.err) == (1, "There is no worker 'gpu-9'. Known are gpu-7.\n")
    assert evalyard("worker", "stop", "gpu-7").code == 2


def test_the_queue_says_what_a_worker_may_use_how_far_it_is_and_which_engines_are_warm(
    hub: Hub, client: TestClient, evalyard: Command
) -> None:
    with hub.writing() as session:
        running = add_evaluation(session, hub.suites["demo"], state=EvaluationState.RUNNING, requests=(30, 120))
        infer = session.exec(select(Job).where(Job.evaluation_id == running.id, Job.stage == Stage.INFER)).one()
        infer.slice_index, infer.slice_count = 1, 3
        add_attempt(session, infer, worker="gpu-7", outcome="")
        warm = session.exec(select(Submission.revision)).one()
        room = {"device_type": "cuda", "device_count": 4, "slots": 2}
        add_worker(session, "gpu-7", kind="engine", now=datetime.now(UTC), warm=[warm, "0123456789"], **room)
    (worker,) = client.get("/api/v1/queue").json()["workers"]
    assert worker["doing"] == ["infer of evaluation 1, slice 2 of 3 (25 %)"]
    assert (worker["devices"], worker["slots"], worker["warm"]) == (4, 2, ["acme/model-1b", "0123456"])
    assert (
        "2 of 4 GPUs infer of evaluation 1, slice 2 of 3 (25 %) Warm: acme/model-1b, 0123456"
        in page(client, "/queue").text
    )
    told = evalyard("queue").out
    assert "2 of 4 GPUs free to use" in told
    assert "    warm: acme/model-1b, 0123456" in told


def test_what_runs_can_be_cancelled_and_what_failed_retried_from_the_queue(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], state=EvaluationState.RUNNING)
        add_evaluation(session, hub.suites["demo"], model="acme/failed", state=EvaluationState.FAILED)
    html = client.get("/queue").text
    assert 'action="/evaluations/1/cancel"' in html
    assert 'action="/evaluations/2/retry"' in html
