"""What the script that Slurm runs tells a launched worker, with a stand-in for srun."""

import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.clusters.slurm import SCRIPT


@pytest.mark.parametrize(
    ("given", "until"),
    [
        ({"LAUNCH_SECONDS": "600", "LAUNCH_NOTICE": "60", "SLURM_JOB_END_TIME": "1000000"}, 999_940),
        ({"SLURM_JOB_END_TIME": "1000000"}, None),
        ({}, None),
    ],
)
def test_a_worker_is_told_its_host_and_when_it_will_be_signalled(
    tmp_path: Path, given: dict[str, str], until: int | None
) -> None:
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\nenv\n")
    srun.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURMD_NODENAME": "node3", **given}
    told = subprocess.run(["sh", str(SCRIPT), "worker"], env=environment, capture_output=True, text=True, check=True)
    lines = dict(line.partition("=")[::2] for line in told.stdout.splitlines())
    assert lines["EVALYARD_WORKER_HOST"] == "node3"
    assert lines.get("EVALYARD_WORKER_UNTIL") == (None if until is None else str(until))
    assert not [name for name in lines if name.startswith("LAUNCH_")]


def test_where_slurm_tells_no_end_it_is_reckoned_from_now(tmp_path: Path) -> None:
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\necho "$EVALYARD_WORKER_UNTIL $(date +%s)"\n')
    srun.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LAUNCH_SECONDS": "600", "LAUNCH_NOTICE": "60"}
    told = subprocess.run(["sh", str(SCRIPT), "worker"], env=environment, capture_output=True, text=True, check=True)
    until, now = map(int, told.stdout.split())
    assert 0 <= now + 540 - until < 60
