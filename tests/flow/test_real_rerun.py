"""An upgrade from lm-eval 0.4.10 to 0.4.13 by commands alone: real packages, real datasets, real processes.

Long, about ten minutes on two cores: `pytest -m slow tests/flow/test_real_rerun.py`. EVALYARD_TEST_HARNESSES names a
folder in which `evalyard harness add lm-eval==0.4.10` was run before; else it is made here, from a package index.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from orchestrator import db
from orchestrator.tables import Attempt, Evaluation, Job
from orchestrator.wire import Stage
from tests.flow.test_system import command, environment
from tests.services import processes_with, wait_until
from tests.tiny import build_tiny_model

pytestmark = [pytest.mark.flow, pytest.mark.slow]

OLD, NEW = "0.4.10", "0.4.13"
SUITE = """
name = "upgrade"
version = "1"
title = "Upgrade"
description = "One subject that did not change between the two versions, and one task whose filter did."
harness = "lm_eval 0.4.10"

[[benchmarks]]
name = "Algebra"
description = "Letter choice."
tasks = ["mmlu_abstract_algebra"]
num_fewshot = 5
parts = [{ task = "mmlu_abstract_algebra", metric = "acc", baseline = 0.25 }]

[[benchmarks]]
name = "BBH"
description = "Generated text, of which a filter takes the answer."
tasks = ["bbh_cot_zeroshot_ruin_names"]
parts = [{ task = "bbh_cot_zeroshot_ruin_names", metric = "exact_match", filter = "flexible-extract" }]
"""


def mirror() -> Path:
    given = os.environ.get("EVALYARD_TEST_DATASETS")
    folder = Path(given) if given else Path(__file__).parents[3] / "shared" / "hub" / "datasets"
    if not folder.is_dir():
        pytest.skip(f"needs the datasets mirror: none at {folder}; set EVALYARD_TEST_DATASETS")
    return folder


class Stranger:
    """Somebody at a terminal who knows nothing but the commands of docs/reruns.md."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        harnesses = os.environ.get("EVALYARD_TEST_HARNESSES") or str(folder / "harnesses")
        (folder / "suites").mkdir()
        (folder / "suites" / "upgrade.toml").write_text(SUITE)
        self.environment = environment() | {
            "EVALYARD_DATA": str(self.data),
            "EVALYARD_SUITES": str(folder / "suites"),
            "EVALYARD_HARNESSES": harnesses,
            "EVALYARD_DATASETS": str(mirror()),
            "EVALYARD_CACHE": str(folder / "cache"),
        }

    def types(self, *words: str, expect: int = 0) -> str:
        finished = subprocess.run(
            [sys.executable, "-m", "submissions.cli", *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        print(f"$ evalyard {' '.join(words)}\n{finished.stdout}{finished.stderr}")
        assert finished.returncode == expect, f"{words}: {finished.stdout}\n{finished.stderr}"
        return finished.stdout

    def asks(self, *words: str) -> Any:
        return json.loads(self.types(*words, "--json"))


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    made = Stranger(tmp_path)
    added = subprocess.run(
        [sys.executable, "-m", "submissions.cli", "harness", "add", f"lm-eval=={OLD}"],
        env=made.environment,
        capture_output=True,
        text=True,
    )
    if added.returncode:
        pytest.skip(f"needs lm-eval {OLD} from a package index: {added.stderr}")
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen(
            command(made.data, 0),
            env=made.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: (made.data / "url").exists() or up.poll() is not None, "it is up", seconds=180)
        yield made
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(120)
    assert processes_with(str(tmp_path)) == {}


def test_an_upgrade_by_commands_starts_no_engine_for_what_is_only_scored_again(
    stranger: Stranger, tmp_path: Path
) -> None:
    model = build_tiny_model(tmp_path / "model", max_length=8192)
    began = time.monotonic()
    listed = stranger.types("harness", "list")
    assert OLD in listed
    assert NEW in listed
    stranger.types("submit", str(model), "--suite", "upgrade", "--precision", "float32", "--wait")
    before = stranger.asks("board", "--suite", "upgrade")
    assert before["suite_version"] == "1"

    stranger.types("rerun", "plan", "--suite", "upgrade", "--harness", NEW)
    plan = stranger.asks("rerun", "status", "1")
    assert {one["benchmark"]: one["evaluations"] for one in plan["verdicts"]} == {
        "Algebra": {"same": 1},
        "BBH": {"score": 1},
    }
    assert [one["new_requests"] for one in plan["verdicts"]] == [0, 0]
    assert (plan["estimate"]["scored"], plan["estimate"]["inferred"]) == (1, 0)
    stranger.types("rerun", "start", "1")
    wait_until(
        lambda: stranger.asks("rerun", "status", "1")["state"] == "finished", "the re-run is through", seconds=600
    )
    engine = db.make_engine(f"sqlite:///{stranger.data / 'evalyard.db'}")
    with db.session(engine, read_only=True) as session:
        (again,) = session.exec(select(Evaluation).where(Evaluation.rerun_id == 1)).all()
        stages = session.exec(
            select(Job.stage, Job.benchmark)
            .join(Attempt, Attempt.job_id == Job.id)  # type: ignore[arg-type]  # SQLModel's columns have no type
            .where(Job.evaluation_id == again.id)
        ).all()
    engine.dispose()
    # Both sheets are made to be compared, one is scored, and nothing is inferred.
    assert sorted(stages) == [(Stage.PREPARE, "Algebra"), (Stage.PREPARE, "BBH"), (Stage.SCORE, "BBH")]

    report = stranger.types("rerun", "report", "1")
    assert "Algebra" in report
    stranger.types("rerun", "switch", "1")
    after = stranger.asks("board", "--suite", "upgrade")
    assert after["suite_version"] == f"1+lm_eval-{NEW}"
    (new,) = after["apart"]
    (old,) = before["apart"]
    assert new["average"] is not None
    assert new["benchmarks"]["Algebra"]["value"] == old["benchmarks"]["Algebra"]["value"]
    stranger.types("rerun", "back", "upgrade")
    again_shown = stranger.asks("board", "--suite", "upgrade")
    exact = ("suite_version", "benchmarks", "ranked", "apart")
    assert {name: again_shown[name] for name in exact} == {name: before[name] for name in exact}
    print(f"from the first command to the last: {time.monotonic() - began:.0f} s")
