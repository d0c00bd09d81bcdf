"""A whole Evalyard on a GPU that others use, too: a file stands for the GPU, a process for the others."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from orchestrator import db
from orchestrator.lifecycle import EvaluationState
from orchestrator.modes import set_mode
from orchestrator.tables import Worker
from orchestrator.wire import Mode
from tests.fleet import Fleet
from tests.services import processes_with, valkey, wait_until

pytestmark = [
    pytest.mark.flow,
    pytest.mark.parametrize(
        "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
    ),
]


def put_on_gpu(fleet: Fleet, *processes: subprocess.Popen[bytes]) -> None:
    there = [{"pid": process.pid, "memory_bytes": 31 * 10**9} for process in processes]
    gpu: dict[str, Any] = {"processes": there, "memory_used": 31 * 10**9 * len(there)}
    written = fleet.folder / "gpus.json.new"
    written.write_text(json.dumps([gpu]))
    written.rename(fleet.folder / "gpus.json")


def engine_worker(fleet: Fleet) -> Worker:
    found = fleet.rows(select(Worker).where(Worker.name == "engine-1"))
    return found[0] if found else Worker(name="engine-1", kind="engine", boot="")


@pytest.fixture
def shared(tmp_path: Path, database_url: str) -> Iterator[Fleet]:
    """A fleet whose engine worker has one GPU, looked at five times a second and idle after one."""
    with valkey(tmp_path / "valkey") as broker:
        made = Fleet(tmp_path / "data", database_url, broker)
        path = made.folder / "gpus.json"
        made.worker_settings = {"GPUS": f"fake:{path}", "GPU_IDLE_SECONDS": "1", "GPU_SAMPLE_SECONDS": "0.2"}
        put_on_gpu(made)
        made.start("control", "harness", "engine")
        try:
            yield made
        finally:
            made.stop()
    assert processes_with(str(tmp_path)) == {}


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_work_leaves_a_gpu_that_others_want_and_goes_on_when_they_are_gone(
    shared: Fleet, models: dict[str, Path], stranger: subprocess.Popen[bytes]
) -> None:
    evaluation = shared.submit(models["one"], limit=25, suite="short")
    shared.wait_for_middle(evaluation)
    put_on_gpu(shared, stranger)
    came = time.monotonic()
    wait_until(lambda: not shared.stages(), "the engine is gone")
    print(f"seconds from the stranger's coming to the engine's end: {time.monotonic() - came:.1f}")
    wait_until(lambda: shared.infer_outcomes(evaluation) == ["preempted"], "the hub knows")
    sentence = f"held: another process {stranger.pid} holds 31 GB and computes nothing"
    wait_until(lambda: [gpu["sentence"] for gpu in engine_worker(shared).gpus or ()] == [sentence], "operators see why")
    assert engine_worker(shared).slots == 0

    put_on_gpu(shared)
    assert shared.wait_for(evaluation).state is EvaluationState.FINISHED
    assert shared.infer_outcomes(evaluation) == ["preempted", "completed"]
    job = shared.infer_job(evaluation)
    assert (job.model_failures, job.infrastructure_failures) == (0, 0)
    computed = shared.computed(evaluation)
    assert computed.total() == len(computed)


def test_a_paused_worker_gives_back_what_it_runs_until_it_is_resumed(shared: Fleet, models: dict[str, Path]) -> None:
    evaluation = shared.submit(models["one"], limit=25, suite="short")
    shared.wait_for_middle(evaluation)
    with db.session(shared.engine) as session:
        set_mode(session, "engine-1", Mode.PAUSED)  # told by the control process alone
    wait_until(lambda: shared.infer_outcomes(evaluation) == ["preempted"], "the work is given back")
    shared.kill("engine", signal.SIGTERM)
    shared.start("engine")
    wait_until(lambda: engine_worker(shared).sentence == "paused by an operator", "a new process hears of it as well")
    assert shared.stages() == {}
    with db.session(shared.engine) as session:
        set_mode(session, "engine-1", Mode.OPEN)
    assert shared.wait_for(evaluation).state is EvaluationState.FINISHED
    assert shared.infer_outcomes(evaluation) == ["preempted", "completed"]


def test_a_warning_by_sigusr1_gives_the_work_back_and_ends_the_worker(shared: Fleet, models: dict[str, Path]) -> None:
    evaluation = shared.submit(models["one"], limit=25, suite="short")
    shared.wait_for_middle(evaluation)
    shared.kill("engine", signal.SIGUSR1)
    assert shared.processes["engine"].returncode == 0
    assert shared.stages() == {}
    wait_until(lambda: shared.infer_outcomes(evaluation) == ["preempted"], "the hub knows")
    shared.start("engine")
    assert shared.wait_for(evaluation).state is EvaluationState.FINISHED
