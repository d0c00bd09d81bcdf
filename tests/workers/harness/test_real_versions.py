"""lm-eval 0.4.10 to 0.4.13 from the package index, in environments of their own, over real datasets: what changed.

Long: `pytest -m slow tests/workers/harness/test_real_versions.py`. EVALYARD_TEST_HARNESSES names a folder in which
`evalyard harness add lm-eval==0.4.10` was run before, and the same for the others.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.reruns.compare import Verdict, VerdictKind, compare
from orchestrator.reruns.facts import FACTS_FILE, SheetFacts, read_facts
from tests.workers.harness.conftest import Harness
from workers.harnesses import launching, making
from workers.sheets import read_instances

pytestmark = pytest.mark.slow

OLD, NEW = "0.4.10", "0.4.13"
LIMIT = 8192
"""Tokens: mmlu_pro generates 2,048 of them."""
UNCHANGED = [
    "arc_challenge",
    "hellaswag",
    "winogrande",
    "gsm8k",
    "mmlu_abstract_algebra",
    "mmlu_high_school_us_history",
]

BBH = [f"bbh_{kind}_{name}" for kind in ("zeroshot", "cot_zeroshot") for name in ("ruin_names", "date_understanding")]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the environments."""
    given = os.environ.get("EVALYARD_TEST_HARNESSES")
    return Path(given) if given else tmp_path_factory.mktemp("harnesses")


class Versions:
    """Runs stages of two versions in one folder."""

    def __init__(self, harness: Harness, installed: Path, model: Path, mirror: Path, *, old: str = OLD) -> None:
        self.folder = harness.folder
        self.model = model
        self.both = (old, NEW)
        self._environment: dict[str, dict[str, str]] = {}
        self._harness: dict[str, Harness] = {}
        for version in self.both:
            try:
                making.add(installed, version, say=print)
            except making.CannotMake as error:
                pytest.skip(f"needs lm-eval {version} from a package index: {error}")
            python, environment = launching.launch(f"lm_eval {version}", installed)
            self._harness[version] = replace(harness, python=python)
            self._environment[version] = {"EVALYARD_DATASETS": str(mirror), **environment}

    def compare(self, name: str, tasks: list[str], **work: Any) -> tuple[Verdict, SheetFacts, SheetFacts]:
        facts = []
        for version in self.both:
            out = f"{name}-{version}"
            finished = self._harness[version].prepare(
                self.model,
                tasks,
                out,
                environment=self._environment[version],
                harness=f"lm_eval {version}",
                context_limit=LIMIT,
                **work,
            )
            assert finished.done["provenance"]["harness"] == f"lm_eval {version}"
            facts.append(read_facts((self.folder / out / FACTS_FILE).read_bytes()))
        return compare(*facts), *facts

    def score_both(self, name: str) -> list[dict[tuple[str, str, str], tuple[float, float | None]]]:
        """Every number, by task, metric and filter, that each version makes of the same answers to its own sheet."""
        old, _ = self.both
        harness = self._harness[old]
        segment = harness.seal(f"{name}-{old}", harness.answers(f"{name}-{old}"))
        found = []
        for version in self.both:
            finished = self._harness[version].score(
                f"{name}-{version}", [segment], environment=self._environment[version], harness=f"lm_eval {version}"
            )
            # Score looks at the same code and packages as prepare, so that a score can be told from others' scores.
            sheet = read_facts((self.folder / f"{name}-{version}" / FACTS_FILE).read_bytes())
            assert finished.done["provenance"]["judged_by"] == sheet.judged_by
            scores = finished.done["scores"]
            found.append({(one["task"], one["metric"], one["filter"]): (one["value"], one["stderr"]) for one in scores})
        return found


@pytest.fixture
def versions(harness: Harness, installed: Path, tiny: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Versions:
    monkeypatch.setenv("EVALYARD_CACHE", str(harness.cache))
    return Versions(harness, installed, tiny, mirror)


def test_tasks_that_did_not_change_carry_over_and_score_alike(versions: Versions) -> None:
    verdict, _, _ = versions.compare("unchanged", UNCHANGED, limit=20, benchmark={"num_fewshot": 5})
    assert (verdict.kind, verdict.new_requests) == (VerdictKind.SAME, 0), verdict
    assert verdict.requests > 300
    before, after = versions.score_both("unchanged")
    assert before == after


@pytest.mark.parametrize("old", ["0.4.11", "0.4.12"])
def test_from_the_versions_between_the_same_tasks_carry_over(
    old: str, harness: Harness, installed: Path, tiny: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALYARD_CACHE", str(harness.cache))
    versions = Versions(harness, installed, tiny, mirror, old=old)
    verdict, _, _ = versions.compare("unchanged", UNCHANGED, limit=10, benchmark={"num_fewshot": 5})
    assert (verdict.kind, verdict.new_requests) == (VerdictKind.SAME, 0), verdict
    before, after = versions.score_both("unchanged")
    assert before == after
    changed, _, _ = versions.compare("bbh", BBH, limit=10)
    assert (changed.kind, changed.new_requests) == (VerdictKind.SCORE, 0), changed


def test_a_filter_that_changed_is_scored_again_without_a_new_request(versions: Versions) -> None:
    verdict, _, _ = versions.compare("bbh", BBH, limit=10)
    assert (verdict.kind, verdict.new_requests) == (VerdictKind.SCORE, 0), verdict
    assert any("filters, metrics or the functions that they name" in sentence for sentence in verdict.sentences)
    versions.score_both("bbh")


def test_a_new_version_number_without_effect_asks_for_nothing(versions: Versions) -> None:
    verdict, old, new = versions.compare("plain", ["mmlu_pro_biology", "mmlu_pro_math"], limit=10)
    assert (verdict.kind, verdict.new_requests) == (VerdictKind.SAME, 0), verdict
    assert [facts.tasks["mmlu_pro_math"].version for facts in (old, new)] == ["3.0", "3.1"]


def test_with_a_chat_template_exactly_the_changed_prompts_are_new(versions: Versions) -> None:
    tasks = ["mmlu_pro_biology", "gsm8k"]
    verdict, old, new = versions.compare("chat", tasks, limit=10, chat_template=True, fewshot_as_multiturn=True)
    texts = [
        {(one.task, one.document): one.arguments[0] for one in read_instances(versions.folder / f"chat-{version}")}
        for version in (OLD, NEW)
    ]
    changed = {key for key, text in texts[1].items() if texts[0][key] != text}
    assert {task for task, _ in changed} == {"mmlu_pro_biology"}
    assert (verdict.kind, verdict.requests, verdict.new_requests) == (VerdictKind.INFER, 20, len(changed))
    assert new.tasks["gsm8k"].requests == old.tasks["gsm8k"].requests
