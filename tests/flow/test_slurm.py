"""Workers on a real Slurm: launched where GPUs are idle, preempted for urgent work, and nothing of theirs is lost."""

import json
import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from sqlmodel import col, select

from orchestrator import db
from orchestrator.clusters.verdicts import cluster_verdicts
from orchestrator.lifecycle import EvaluationState
from orchestrator.tables import Attempt, Launch
from tests.fleet import SEAL_SECONDS, Fleet
from tests.services import processes_with, valkey, wait_until
from tests.slurm import Slurm

pytestmark = [pytest.mark.flow, pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)]

GRACE_SECONDS = 20.0
"""What issue and settings promise: from the signal to a free GPU."""

CLUSTERS = """
[[slurm]]
name = "lent"
partition = "scavenger"
gpu = "gpu:fake"
most_workers = 2
cpus = 1
memory = "1GB"
every = "1s"
until_idle = "5s"
time_limit = "1h"
logs = "{logs}"
command = ["{python}", "-m", "workers.app"]

[slurm.environment]
{environment}
"""


@pytest.fixture
def fleet(tmp_path: Path, database_url: str, slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Broker, control and a harness worker; engine workers are what Slurm lends."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    with valkey(tmp_path / "valkey") as broker:
        made = Fleet(tmp_path / "data", database_url, broker)
        environment = {
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "EVALYARD_WORKER_SCRATCH": str(tmp_path / "scratch"),
            "EVALYARD_WORKER_WEIGHTS": str(tmp_path / "weights"),
            "EVALYARD_WORKER_HEARTBEAT_SECONDS": "1",
            "EVALYARD_WORKER_SEAL_SECONDS": str(SEAL_SECONDS),
            "EVALYARD_WORKER_ENGINE_SETTINGS": json.dumps(made.engine_settings),
        }
        lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in environment.items())
        text = CLUSTERS.format(logs=tmp_path, python=sys.executable, environment=lines)
        (made.folder / "clusters.toml").write_text(text)
        made.start("control", "harness")
        try:
            yield made
        finally:
            made.stop()
            slurm.cancel_all()
    assert processes_with(str(tmp_path)) == {}


def verdict(fleet: Fleet) -> str:
    with db.session(fleet.engine, read_only=True) as session:
        return " ".join(one.verdict for one in cluster_verdicts(session, datetime.now().astimezone()))


def launches(fleet: Fleet) -> list[Launch]:
    return fleet.rows(select(Launch).order_by(col(Launch.asked_at)))


def node_of(slurm: Slurm, handle: str) -> str:
    return slurm.run("squeue", "-h", "-j", handle, "-t", "all", "-o", "%N").strip()


def said_at(log: str, words: str) -> float:
    """When a worker's log has these words."""
    (line,) = [line for line in log.splitlines() if words in line]
    stamp = re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", line)
    assert stamp is not None
    return datetime.strptime(stamp[0], "%Y-%m-%d %H:%M:%S,%f").timestamp()


def wait_for_more(fleet: Fleet, evaluation: int, *, than: int) -> int:
    try:
        wait_until(lambda: len(fleet.computed(evaluation)) > than, "responses are sealed", seconds=120)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{verdict(fleet)}\n{fleet.log()}") from None
    return len(fleet.computed(evaluation))


def test_a_preempted_worker_gives_its_gpu_back_in_seconds_and_its_work_goes_on_elsewhere(
    fleet: Fleet, slurm: Slurm, models: dict[str, Path], tmp_path: Path
):
    wait_until(lambda: "No job waits" in verdict(fleet), "the cluster was looked at", seconds=120)
    assert launches(fleet) == []

    evaluation = fleet.submit(models["one"], limit=38, suite="short")
    sealed = wait_for_more(fleet, evaluation, than=20)
    (first,) = launches(fleet)
    assert first.handle is not None
    node = node_of(slurm, first.handle)

    script = tmp_path / "urgent.sh"
    script.write_text("#!/bin/sh\ndate +%s.%N\nexec sleep 300\n")
    urgent = tmp_path / "urgent.log"
    submitted_at = time.time()
    slurm.run(
        *("sbatch", "--partition=main", "--gres=gpu:fake:1", "--mem=1G", f"--nodelist={node}"),
        *(f"--output={urgent}", str(script)),
    )
    wait_until(lambda: urgent.exists() and urgent.read_text().strip(), "the urgent job has its GPU", seconds=60)
    has_gpu_at = float(urgent.read_text())
    assert processes_with(f"/scratch/{first.worker}") == {}
    sealed_by_then = len(fleet.computed(evaluation))

    wait_for_more(fleet, evaluation, than=max(sealed, sealed_by_then))
    resumed_at = time.time()
    (_, second) = launches(fleet)
    assert second.handle is not None
    assert node_of(slurm, second.handle) not in ("", node)
    finished = fleet.wait_for(evaluation)

    log = (tmp_path / f"{first.worker}.log").read_text()
    signal_at = said_at(log, "gives back what it runs")
    computed = fleet.computed(evaluation)
    twice = computed.total() - len(computed)
    print()
    print(f"seconds from the urgent job's submission to the preemption signal: {signal_at - submitted_at:.1f}")
    print(f"seconds from the preemption signal to the worker's end: {said_at(log, 'has ended') - signal_at:.1f}")
    print(f"seconds from the preemption signal to the urgent job on the GPU: {has_gpu_at - signal_at:.1f}")
    print(f"seconds from the preemption signal to the next sealed response: {resumed_at - signal_at:.1f}")
    print(f"requests computed twice: {twice} of {len(computed)}")
    assert has_gpu_at - signal_at < GRACE_SECONDS
    assert twice == 0, "a worker that is told to go seals what it has"
    assert finished.state is EvaluationState.FINISHED
    job = fleet.infer_job(evaluation)
    assert (job.model_failures, job.infrastructure_failures) == (0, 0)
    assert job.requests_total == len(computed)
    first_attempt, last_attempt = fleet.rows(
        select(Attempt).where(Attempt.job_id == job.id).order_by(col(Attempt.dispatched_at))
    )
    assert (first_attempt.worker, last_attempt.worker) == (first.worker, second.worker)
    assert (first_attempt.outcome, last_attempt.outcome) == ("preempted", "completed")

    undisturbed = fleet.submit(models["two"], limit=38, suite="short")
    assert fleet.wait_for(undisturbed).state is EvaluationState.FINISHED
    assert fleet.scores(evaluation) == fleet.scores(undisturbed)

    wait_until(lambda: all(one.ended_at for one in launches(fleet)), "idle workers have ended", seconds=60)
    assert not any(one.is_death for one in launches(fleet))
    assert "scavenger" not in slurm.run("squeue", "-h", "-o", "%P")
