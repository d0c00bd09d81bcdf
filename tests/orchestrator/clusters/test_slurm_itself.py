"""The Slurm launcher against a real Slurm: what it sees, launches and cancels, beside jobs of others."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from orchestrator.clusters.config import SlurmSettings
from orchestrator.clusters.contract import ClusterAway, ClusterView, JobState, Launch, LaunchRefused, OwnJob
from orchestrator.clusters.slurm import Slurm as Launching
from orchestrator.settings import HubSettings
from tests.orchestrator.clusters.test_launches import Crash, Place
from tests.orchestrator.yard import Yard
from tests.services import wait_until
from tests.slurm import Slurm

LAUNCH = Launch("0123456789", "lent-0123456789")
SLEEPS = ("/bin/sh", "-c", 'echo "$SECRET / $0 $*"; exec sleep 600')


@pytest.fixture
def cluster(slurm: Slurm, tmp_path: Path) -> Iterator[Slurm]:
    """The real Slurm, without jobs before and after."""
    yield slurm
    slurm.cancel_all()


def settings(slurm: Slurm, tmp_path: Path, **more: Any) -> SlurmSettings:
    fields: dict[str, Any] = {
        "name": "lent",
        "partition": "scavenger",
        "gpu": "gpu:fake",
        "cpus": 1,
        "memory": "1GB",
        "logs": tmp_path,
        "command": SLEEPS,
        "slurm_conf": slurm.environment["SLURM_CONF"],
    }
    return SlurmSettings(**fields | more)


def launcher(slurm: Slurm, tmp_path: Path, *, token: str = "ours", **more: Any) -> Launching:
    return Launching(settings(slurm, tmp_path, **more), token=token)


def own(found: ClusterView) -> OwnJob:
    (job,) = found.jobs
    return job


def submit(slurm: Slurm, tmp_path: Path, *options: str) -> str:
    """A job of somebody else."""
    script = tmp_path / "other.sh"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    return slurm.run("sbatch", "--parsable", "--mem=1G", "--output=/dev/null", *options, str(script)).strip()


def is_running(slurm: Slurm, job: str) -> bool:
    return slurm.run("squeue", "-h", "-j", job, "-o", "%T").strip() == "RUNNING"


def test_an_idle_cluster_shows_its_gpus_and_the_room_for_workers(cluster: Slurm, tmp_path: Path):
    found = launcher(cluster, tmp_path).look()
    assert (found.total, found.idle, found.room, found.others.jobs, found.jobs) == (2, 2, 2, 0, ())
    assert (found.notes, found.hindrance) == ((), "")
    assert launcher(cluster, tmp_path, memory="9GB").look().room == 0
    (note,) = launcher(cluster, tmp_path, gpu="gpu:a100").look().notes
    assert "has no node with gpu:a100" in note
    (note,) = launcher(cluster, tmp_path, partition="main").look().notes
    assert note.startswith("Slurm does not preempt jobs of partition main")


def test_a_launched_job_runs_with_its_environment_and_ends_when_it_is_cancelled(cluster: Slurm, tmp_path: Path):
    launching = launcher(cluster, tmp_path)
    handle = launching.launch(LAUNCH, {"SECRET": 'hunter2 $(touch broken) `"'})
    wait_until(lambda: own(launching.look()).state is JobState.RUNNING, "it runs")
    found = launching.look()
    assert own(found) == OwnJob("0123456789", handle, JobState.RUNNING)
    assert (found.idle, found.room, found.others.jobs) == (1, 1, 0)
    assert launcher(cluster, tmp_path, token="theirs").look().jobs == ()
    log = tmp_path / "lent-0123456789.log"
    wait_until(lambda: log.exists() and log.read_text(), "it writes its log")
    assert log.read_text() == 'hunter2 $(touch broken) `" / engine --name lent-0123456789\n'
    assert not (tmp_path / "broken").exists()
    assert "hunter2" not in cluster.run("scontrol", "show", "job", handle)
    launching.cancel(handle)
    wait_until(lambda: own(launching.look()).state is JobState.ENDED, "it has ended")
    launching.cancel(handle)
    launching.cancel("99999")


def test_jobs_of_others_that_wait_for_a_gpu_are_seen_and_those_that_could_not_start_are_not(
    cluster: Slurm, tmp_path: Path
):
    launching = launcher(cluster, tmp_path)
    submit(cluster, tmp_path, "--gres=gpu:1", "--hold")
    submit(cluster, tmp_path, "--gres=gpu:1", "--begin=now+1hour")
    first, second = (submit(cluster, tmp_path, "--gres=gpu:fake:1") for _ in range(2))
    wait_until(lambda: is_running(cluster, first) and is_running(cluster, second), "others have both GPUs")
    found = launching.look()
    assert (found.total, found.idle, found.room, found.others.jobs) == (2, 0, 0, 0)
    submit(cluster, tmp_path, "--gpus=2")
    submit(cluster, tmp_path, "--nodes=1")
    assert (launching.look().others.jobs, launching.look().others.gpus) == (1, 2)
    submit(cluster, tmp_path, "--exclusive", "--nodes=2")
    found = launching.look()
    assert (found.others.jobs, found.others.gpus) == (2, 4)
    assert found.others.since is not None


def test_what_slurm_refuses_or_lacks_is_a_sentence(cluster: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(LaunchRefused, match="Requested node configuration is not available"):
        launcher(cluster, tmp_path, gpus=64).launch(LAUNCH, {})
    with pytest.raises(ClusterAway, match=r"scontrol failed: Partition nowhere not found"):
        launcher(cluster, tmp_path, partition="nowhere").look()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterAway, match="There is no program scontrol"):
        launcher(cluster, tmp_path).look()


def test_variables_of_the_control_process_change_nothing(
    cluster: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SBATCH_HOLD", "1")
    monkeypatch.setenv("SBATCH_REQUEUE", "1")
    monkeypatch.setenv("SQUEUE_STATES", "COMPLETED")
    monkeypatch.setenv("EVALYARD_DATABASE_URL", "postgresql://yard:hunter2@db/yard")
    # A token of its own: Slurm lists ended jobs for five minutes.
    launching = launcher(cluster, tmp_path, token="another", command=("/bin/sh", "-c", "env; echo $*"))
    handle = launching.launch(LAUNCH, {"TOLD": "yes"})
    assert own(launching.look()).handle == handle
    assert "Requeue=0" in cluster.run("scontrol", "show", "job", handle)
    wait_until(lambda: own(launching.look()).state is JobState.ENDED, "it has ended")
    log = (tmp_path / "lent-0123456789.log").read_text()
    assert "TOLD=yes" in log
    assert "hunter2" not in log


class CrashesOnceLaunched(Launching):
    """The control process ends before it hears that Slurm took the job."""

    def launch(self, launch: Launch, environment: Mapping[str, str]) -> str:
        super().launch(launch, environment)
        raise Crash


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_after_a_crash_a_job_is_found_by_its_mark_and_none_is_launched_twice(
    cluster: Slurm, engine: Engine, tmp_path: Path
):
    hub = HubSettings(data=tmp_path, engine="scripted", broker_url="redis://broker:6379/0")
    patient = settings(cluster, tmp_path, pending_timeout="1h", start_timeout="1h")
    place = Place(Yard(engine, now=datetime.now(UTC)), hub, patient)
    place.step(place.control())  # nothing waits: the cluster gets its token
    place.queue(1)
    crashing = place.control()
    crashing.system = CrashesOnceLaunched(place.settings, token=place.token())
    with pytest.raises(Crash):
        place.step(crashing, 181)
    assert [row.handle for row in place.rows()] == [None]
    after = place.control()
    after.system = None
    assert place.step(after, 181).launch == 0
    (handle,) = cluster.run("squeue", "-h", "-o", "%i").split()
    assert [row.handle for row in place.rows()] == [handle]
