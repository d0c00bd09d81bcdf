"""The operators' page: what it lists of the jobs, and cancelling and retrying several at once."""

import re
import time
from datetime import UTC, datetime, timedelta

import sqlalchemy
from sqlmodel import select
from starlette.testclient import TestClient

from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.tables import Evaluation, Job, Source
from orchestrator.wire import FailureKind, Stage
from submissions.context import Hub
from submissions.reading.jobs import PAGE_JOBS, Show, read_jobs
from tests.submissions.factories import NOON, add_evaluation, add_worker
from tests.submissions.pages import page


def test_without_jobs_every_state_says_so(client: TestClient) -> None:
    for show in Show:
        assert "No job is in this state" in page(client, f"/operate?show={show.value}").text
    assert "/operate" in page(client, "/queue").links


def test_jobs_are_listed_by_state_with_why_they_wait_or_failed(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        demo = hub.suites["demo"]
        add_evaluation(session, demo, model="acme/waits", state=EvaluationState.RUNNING, waits=True)
        add_evaluation(session, demo, model="acme/runs", state=EvaluationState.RUNNING, requests=(30, 60))
        broken = add_evaluation(
            session,
            demo,
            model="acme/broken",
            state=EvaluationState.FAILED,
            failure=FailureKind.OUT_OF_MEMORY,
            sentence="It needs 90 GB.",
        )
    queued = page(client, "/operate")
    assert "acme/waits" in queued.text
    assert "acme/runs" not in queued.text
    assert "No vllm engine worker is connected." in queued.text
    running = page(client, "/operate?show=running")
    assert "acme/runs" in running.text
    assert "50 % answered" in running.text
    failed = page(client, "/operate?show=failed")
    assert "failed out of memory It needs 90 GB." in failed.text
    assert f"/evaluations/{broken.id}" in failed.links
    assert "/operate?show=failed&failure=out_of_memory" in failed.links
    assert "It needs 90 GB." in page(client, "/operate?show=failed&failure=out_of_memory").text
    assert "No job is in this state" in page(client, "/operate?show=failed&failure=timeout").text


def test_when_no_worker_is_heard_of_it_is_said_where_to_look(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_worker(session, "gpu-7", kind="engine", now=datetime.now(UTC) - timedelta(minutes=12))
    for path in ("/operate", "/queue"):
        assert "The last word of any worker came 12 min ago." in page(client, path).text
    with hub.writing() as session:
        add_worker(session, "gpu-8", kind="engine", now=datetime.now(UTC))
    assert "last word" not in page(client, "/operate").text


def test_several_are_cancelled_at_once_and_what_has_ended_stops_none_of_them(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        demo = hub.suites["demo"]
        first, second = (
            add_evaluation(session, demo, model=f"acme/{name}", state=EvaluationState.RUNNING, waits=True)
            for name in "ab"
        )
        ended = add_evaluation(session, demo, model="acme/ended")
        numbers = [row.id for row in (first, ended, second)]
    form = {"do": "cancel", "show": "queued", "page": "1", "evaluation": [str(number) for number in numbers]}
    answer = client.post("/operate", data=form)
    assert "2 evaluations were changed. 1 could not be" in " ".join(answer.text.split())
    with hub.reading() as session:
        states = {number: session.get_one(Evaluation, number).state for number in numbers if number}
    assert list(states.values()) == [EvaluationState.CANCELLED, EvaluationState.FINISHED, EvaluationState.CANCELLED]


def test_what_failed_is_retried_by_evaluation_and_foreign_choices_are_refused(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        failed = add_evaluation(
            session, hub.suites["demo"], state=EvaluationState.FAILED, failure=FailureKind.ENGINE, sentence="It died."
        )
        number = failed.id
    client.post("/operate", data={"do": "retry", "show": "failed", "evaluation": str(number)})
    with hub.reading() as session:
        left = session.exec(select(Job).where(Job.evaluation_id == number, Job.state == JobState.FAILED)).all()
    assert left == []
    for form in ({"do": "delete", "evaluation": "1"}, {"do": "cancel", "evaluation": "1; drop"}):
        assert client.post("/operate", data=form).status_code == 422
    many = {"do": "cancel", "evaluation": ["1"] * 500}
    assert client.post("/operate", data=many).status_code == 422


def test_all_that_failed_for_one_reason_are_retried_by_one_button_a_page(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        for kind, count in ((FailureKind.STORAGE, PAGE_JOBS), (FailureKind.OUT_OF_MEMORY, 1)):
            for number in range(count):
                add_evaluation(
                    session,
                    hub.suites["demo"],
                    model=f"{kind.value}/{number}",
                    state=EvaluationState.FAILED,
                    failure=kind,
                )
    shown = client.get("/operate?show=failed&failure=storage").text
    listed = re.findall(r'name="listed" value="(\d+)"', shown)
    assert len(listed) == PAGE_JOBS
    every_field = {"do": "retry-listed", "show": "failed", "failure": "storage", "page": "1", "listed": listed}
    answer = client.post("/operate", data=every_field | {"evaluation": listed})
    assert f"{len(set(listed))} evaluations were changed." in " ".join(answer.text.split())
    with hub.reading() as session:
        left = session.exec(select(Job.failure, Job.evaluation_id).where(Job.state == JobState.FAILED)).all()
    assert {kind for kind, _ in left} == {FailureKind.OUT_OF_MEMORY, FailureKind.STORAGE}
    assert {str(number) for _, number in left}.isdisjoint(listed), "what the page did not list is left"
    assert "retry-listed" not in client.get("/operate").text


def test_a_page_of_ten_thousand_waiting_jobs_is_one_page_of_them(hub: Hub) -> None:
    with hub.writing() as session:
        first = add_evaluation(session, hub.suites["demo"], state=EvaluationState.RUNNING, waits=True)
        jobs = [
            {
                "evaluation_id": first.id,
                "stage": Stage.SCORE,
                "benchmark": f"B{number}",
                "state": JobState.QUEUED,
                "created_at": NOON,
                "turn_at": NOON + timedelta(seconds=number),
                "result": {},
                "identity": {},
            }
            for number in range(10_000)
        ]
        session.execute(sqlalchemy.insert(Job), jobs)
    with hub.reading() as session:
        begun = time.perf_counter()
        found = read_jobs(session, Show.QUEUED, page=3, policy=hub.policy)
        seconds = time.perf_counter() - begun
    assert len(found.lines) == PAGE_JOBS
    assert found.counts[Show.QUEUED] >= 10_000
    assert found.pages >= 200
    assert seconds < 10, "generous: other work shares the machine"


def test_a_canarys_jobs_and_what_an_imported_row_lacks_are_no_failures_of_this_hub(hub: Hub) -> None:
    with hub.writing() as session:
        demo = hub.suites["demo"]
        own = add_evaluation(
            session, demo, state=EvaluationState.FAILED, failure=FailureKind.ENGINE, sentence="It died."
        )
        brought = add_evaluation(
            session, demo, model="acme/brought", state=EvaluationState.FAILED, failure=FailureKind.ENGINE
        )
        source = Source(address="/srv/board", layout="evalyard", read_at=NOON)
        session.add(source)
        session.flush()
        brought.source_id = source.id
        for state in (JobState.FAILED, JobState.QUEUED):
            canary = Job(
                evaluation_id=own.id or 0,
                stage=Stage.CANARY,
                benchmark=state.value,
                state=state,
                created_at=NOON,
                failure=FailureKind.ENGINE if state is JobState.FAILED else None,
            )
            session.add(canary)
        number = own.id
    with hub.reading() as session:
        failed = read_jobs(session, Show.FAILED, policy=hub.policy)
        queued = read_jobs(session, Show.QUEUED, policy=hub.policy)
    assert {(line.evaluation, line.stage) for line in failed.lines} == {
        (number, stage) for stage in (Stage.PREPARE, Stage.INFER, Stage.SCORE)
    }
    assert sum(failed.failures.values()) == failed.counts[Show.FAILED] == len(failed.lines)
    assert (queued.lines, queued.counts[Show.QUEUED]) == ([], 0)
