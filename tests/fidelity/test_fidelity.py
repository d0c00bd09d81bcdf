"""End to end against lm-eval itself: the same benchmark through three stages, and by one fresh `simple_evaluate`.

Same tiny model, float32, default seeds, an empty datasets cache for the reference. The transformers engine is held
against lm-eval's `hf` at batch 1, the vLLM engine against lm-eval's `vllm`.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire import EngineFamily
from tests.fidelity.compare import Comparison, compare_samples, same_distribution, texts
from tests.fidelity.runs import Found, Scenario, by_evalyard, by_lm_eval, mirror
from tests.tiny import build_tiny_model
from workers.sheets import SheetInfo, read_info

pytestmark = pytest.mark.vllm

SAMPLED = frozenset({"fidelity_sampled"})

EVERY_KIND = ("fidelity_group", "demo_stories", "demo_sums", "fidelity_rolling", "fidelity_empty")
"""Letter choice in a group, continuations, greedy generation, rolling windows, an empty context."""

PLAIN = Scenario("plain", (*EVERY_KIND, *SAMPLED), limit=10)
CHAT = Scenario("chat", EVERY_KIND, limit=6, num_fewshot=3, chat_template=True, system_instruction="Answer shortly.")
"""Its model holds 96 tokens: few-shot prompts are cut, long texts take several windows."""

WIDE = (
    Scenario(
        "real",
        ("mmlu_astronomy", "mmlu_world_religions", "hellaswag", "arc_challenge", "winogrande", "gsm8k"),
        limit=4,
        num_fewshot=5,
        stock_tasks=True,
    ),
    Scenario("mmlu", ("mmlu",), limit=2, num_fewshot=5, stock_tasks=True),
    Scenario("arc", ("arc_challenge",), limit=25, num_fewshot=25, stock_tasks=True),
    Scenario("hellaswag-chat", ("hellaswag",), limit=25, num_fewshot=10, chat_template=True, stock_tasks=True),
    Scenario("truthfulqa", ("truthfulqa_mc1", "truthfulqa_mc2"), limit=25, stock_tasks=True),
    Scenario("gsm8k", ("gsm8k",), limit=10, num_fewshot=5, stock_tasks=True),
    Scenario("bbh", ("bbh_zeroshot_navigate", "bbh_zeroshot_snarks"), limit=10, stock_tasks=True),
    Scenario("ifeval", ("ifeval",), limit=3, stock_tasks=True),
)

ENGINES = (EngineFamily.TRANSFORMERS, EngineFamily.VLLM)


@dataclass(frozen=True)
class Pair:
    scenario: Scenario
    ours: Found
    theirs: Found
    comparison: Comparison
    sheet: SheetInfo


def run_both(scenario: Scenario, engine: EngineFamily, folder: Path) -> Pair:
    model = build_tiny_model(
        folder / "model", chat_template=scenario.chat_template, max_length=96 if scenario is CHAT else 2048
    )
    ours = by_evalyard(scenario, engine, model, folder / "ours")
    theirs = by_lm_eval(scenario, engine.rules, model, folder / "theirs")
    comparison = compare_samples(ours.samples, theirs.samples, sampled=SAMPLED)
    if comparison.near_ties:
        warnings.warn(f"{scenario.name}: reference margins under 1e-4: {comparison.near_ties}", stacklevel=1)
    (sheet,) = (folder / "ours" / "run").rglob("sheet.json")
    return Pair(scenario, ours, theirs, comparison, read_info(sheet.parent))


def assert_faithful(pair: Pair) -> None:
    comparison = pair.comparison
    assert comparison.faults == []
    assert comparison.log_likelihoods + comparison.generations > 0
    if not comparison.near_ties:
        # Nothing could fall the other way: then every aggregated number is lm-eval's, too.
        kept = {task: table for task, table in pair.ours.results.items() if task not in SAMPLED}
        expected = {task: table for task, table in pair.theirs.results.items() if task not in SAMPLED}
        assert kept.keys() == expected.keys()
        for task, table in expected.items():
            assert _numbers(kept[task]) == pytest.approx(_numbers(table), rel=1e-4, nan_ok=True)
    assert pair.ours.groups.keys() == pair.theirs.groups.keys()


def _numbers(table: dict[str, Any]) -> dict[str, float]:
    """A task's row without its names and without standard errors that lm-eval does not give."""
    return {name: float(value) for name, value in table.items() if isinstance(value, int | float)}


@pytest.fixture(scope="module", params=ENGINES, ids=str)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return run_both(PLAIN, request.param, tmp_path_factory.mktemp(f"plain-{request.param}"))


def test_without_chat_template_every_answer_and_metric_is_lm_eval_s(plain: Pair) -> None:
    assert_faithful(plain)
    assert (plain.comparison.log_likelihoods, plain.comparison.generations) == (170, 10)
    assert "fidelity_group" in plain.ours.groups
    assert plain.sheet.truncated == 0


def test_sampled_generations_follow_the_same_distribution(plain: Pair) -> None:
    ours, theirs = (texts(found.samples["fidelity_sampled"]) for found in (plain.ours, plain.theirs))
    assert len(ours) == len(theirs) == 160
    assert len(set(ours)) > 5
    assert same_distribution(ours, theirs)


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_with_chat_template_shots_and_truncation_every_answer_and_metric_is_lm_eval_s(
    engine: EngineFamily, tmp_path: Path
) -> None:
    pair = run_both(CHAT, engine, tmp_path)
    assert_faithful(pair)
    assert pair.sheet.truncated > 0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("scenario", WIDE, ids=lambda scenario: scenario.name)
def test_on_each_real_benchmark_every_answer_and_metric_is_lm_eval_s(
    engine: EngineFamily, scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes each: `make test-full`, or `pytest -m slow tests/fidelity`."""
    if mirror() is None:
        pytest.skip("needs the datasets mirror: set EVALYARD_TEST_DATASETS to run this on real data")
    monkeypatch.setenv("EVALYARD_DATASETS", str(mirror()))
    assert_faithful(run_both(scenario, engine, tmp_path))
