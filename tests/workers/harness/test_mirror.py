"""The boards' real tasks on real data, where the mirror is at hand: prepared, answered by chance, scored, offline."""

from pathlib import Path
from typing import Any

import pytest

from tests.workers.harness.conftest import Harness

BENCHMARKS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "arc": (["arc_challenge"], {"num_fewshot": 25}),
    "mmlu": (["mmlu_astronomy", "mmlu_anatomy"], {"num_fewshot": 5}),
    "generated": (["gsm8k", "leaderboard_ifeval"], {}),
    "others": (["hellaswag", "winogrande", "truthfulqa_mc2", "leaderboard_mmlu_pro", "leaderboard_bbh_navigate"], {}),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_board_s_tasks_are_prepared_and_scored_offline(name: str, harness: Harness, tiny: Path, mirror: Path) -> None:
    tasks, settings = BENCHMARKS[name]
    prepared = harness.prepare(
        tiny, tasks, name, benchmark=settings, limit=5, environment={"EVALYARD_DATASETS": str(mirror)}
    )
    assert all(
        task["dataset"]["source"] == "mirror" and task["dataset"]["revision"].startswith("sha256-")
        for task in prepared.done["provenance"]["tasks"].values()
    )
    scored = harness.score(name, [harness.seal(name, harness.answers(name))])
    assert {score["task"] for score in scored.done["scores"]} == set(tasks)
    assert all(0 <= score["value"] <= 1 and score["samples"] == 5 for score in scored.done["scores"])
