"""Clusters for operators: on the queue page, in the API, in `evalyard cluster`."""

from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from orchestrator.tables import Cluster, Launch
from submissions.context import Hub
from tests.submissions.command import Command

VERDICT = "3 jobs of others wait for gpu:a100: not launching."
FACTS = {
    "gpus": "gpu:a100", "total": 8, "idle": 2, "others_jobs": 3, "up": 1, "starting": 0, "every_seconds": 15,
    "notes": ["Partition x has <b>GraceTime=0</b>."],
}  # fmt: skip


@pytest.fixture
def cluster(hub: Hub) -> Cluster:
    now = datetime.now(UTC)
    row = Cluster(name="a100", kind="slurm", token="t", looked_at=now, verdict=VERDICT, facts=FACTS)
    died = Launch(
        id="0123456789", cluster="a100", worker="a100-0123456789", state="ended", asked_at=now, ended_at=now,
        is_death=True, sentence="Slurm says FAILED.",
    )  # fmt: skip
    with hub.writing() as session:
        session.add(row)
        session.add(died)
    return row


def test_the_queue_page_says_of_each_cluster_why_it_launches_or_not(client: TestClient, cluster: Cluster) -> None:
    page = client.get("/queue").text
    assert VERDICT in page
    assert "gpu:a100: 2 of 8 idle, 3 jobs of others wait; workers: 1 up, 0 starting." in page
    assert "&lt;b&gt;GraceTime=0&lt;/b&gt;" in page
    assert "Failed: Slurm says FAILED." in page


def test_a_page_without_clusters_does_not_speak_of_them(client: TestClient) -> None:
    assert "Clusters" not in client.get("/queue").text
    assert client.get("/api/v1/clusters").json() == []


def test_the_api_tells_the_same(client: TestClient, cluster: Cluster) -> None:
    (found,) = client.get("/api/v1/clusters").json()
    assert (found["name"], found["verdict"], found["idle"], found["paused"]) == ("a100", VERDICT, 2, False)
    assert found["failures"] == ["Slurm says FAILED."]


def test_an_operator_pauses_and_resumes_a_cluster(evalyard: Command, hub: Hub, cluster: Cluster) -> None:
    ran = evalyard("cluster", "pause", "a100")
    assert ran.code == 0
    assert ran.out.startswith("Cluster a100 is paused")
    shown = evalyard("cluster", "status").out
    assert f"a100 (slurm): {VERDICT}\n  Since 20" in shown
    assert "cluster resume a100\n" in shown
    with hub.reading() as session:
        assert session.get_one(Cluster, "a100").paused
    assert "launches again" in evalyard("cluster", "resume", "a100").out
    with hub.reading() as session:
        assert not session.get_one(Cluster, "a100").paused
        assert not session.get_one(Launch, "0123456789").is_death


def test_a_name_that_is_none_or_missing_is_a_sentence(evalyard: Command, cluster: Cluster) -> None:
    ran = evalyard("cluster", "pause", "h100")
    assert (ran.code, "There is no cluster h100. Known: a100." in ran.err) == (1, True)
    assert evalyard("cluster", "pause").code == 2


def test_without_a_clusters_file_the_command_says_where_to_begin(evalyard: Command) -> None:
    assert "Write a clusters file" in evalyard("cluster").out
