"""Two versions of small tasks, prepared for real and compared: one case of each verdict (versions/README.md)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.reruns.compare import VerdictKind, compare, removed
from orchestrator.reruns.facts import FACTS_FILE, SheetFacts, read_facts
from tests.workers.harness.conftest import Harness
from workers.sheets import read_requests

VERSIONS = Path(__file__).with_name("versions")
TASKS = ["v_same", "v_score", "v_infer"]
DOCUMENTS = 24
HINTED = 12
"""Documents with a hint, whose prompts the new version of `v_infer` changes."""


@pytest.fixture
def facts(harness: Harness, tiny: Path) -> dict[str, SheetFacts]:
    """Of the sheets of both versions; of the old one with the task that is gone."""
    mirror = harness.folder / "mirror" / "evalyard" / "versions"
    mirror.mkdir(parents=True)
    (mirror / "test.jsonl").write_bytes((VERSIONS / "rows.jsonl").read_bytes())
    for version in ("old", "new"):
        finished = prepare(harness, tiny, version, TASKS + (["v_gone"] if version == "old" else []))
        assert finished.done["sheet_class"]
    return {version: read_facts((harness.folder / version / FACTS_FILE).read_bytes()) for version in ("old", "new")}


def prepare(harness: Harness, model: Path, version: str, tasks: list[str], **more: Any) -> Any:
    environment = {"EVALYARD_DATASETS": str(harness.folder / "mirror")}
    folders = [str(VERSIONS / version)]
    return harness.prepare(model, tasks, more.pop("out", version), task_folders=folders, environment=environment)


def only(facts: SheetFacts, *tasks: str) -> SheetFacts:
    return replace(facts, tasks={name: facts.tasks[name] for name in tasks})


def test_two_versions_of_small_tasks_show_each_verdict(
    facts: dict[str, SheetFacts], harness: Harness, tiny: Path
) -> None:
    old, new = facts["old"], facts["new"]

    same = compare(only(old, "v_same"), only(new, "v_same"))
    assert (same.kind, same.requests, same.new_requests) == (VerdictKind.SAME, DOCUMENTS, 0)
    assert "from version 1.0 to 1.1" in same.sentences[0]

    score = compare(only(old, "v_score"), only(new, "v_score"))
    assert (score.kind, score.new_requests) == (VerdictKind.SCORE, 0)
    assert "filters, metrics or the functions that they name" in score.sentences[1]

    infer = compare(only(old, "v_infer"), only(new, "v_infer"))
    assert (infer.kind, infer.requests, infer.new_requests) == (VerdictKind.INFER, DOCUMENTS, HINTED)
    lengths = {request.id: request.length for request in read_requests(harness.folder / "new")}
    fresh = new.tasks["v_infer"].requests.keys() - old.tasks["v_infer"].requests.keys()
    assert infer.new_tokens == sum(lengths[address.hex()] for address in fresh)

    gone = compare(only(old, "v_same", "v_gone"), only(new, "v_same"))
    assert (gone.kind, gone.new_requests) == (VerdictKind.INCOMPARABLE, 0)
    assert "v_gone is no longer in lm_eval" in gone.sentences[0]

    refused = prepare(harness, tiny, "new", ["v_gone"], out="gone").last
    assert refused["failure"] == "task_refused"
    assert removed(refused["sentence"]).kind is VerdictKind.INCOMPARABLE


def test_every_request_of_the_sheet_is_in_its_facts(facts: dict[str, SheetFacts], harness: Harness) -> None:
    written = {request.id: request.length for request in read_requests(harness.folder / "new")}
    found = {address.hex(): tokens for task in facts["new"].tasks.values() for address, tokens in task.requests.items()}
    assert found == written
