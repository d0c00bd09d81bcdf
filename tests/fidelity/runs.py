"""Runs the same benchmark twice: through Evalyard's three stages, and by lm-eval in a process of its own."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.wire import Benchmark, EngineFamily, InferDone, Model, Precision
from workers.local.pipeline import Plan, evaluate
from workers.reference import launch
from workers.reference.answers import read_samples
from workers.reference.records import BackEnd, ReferenceBenchmark, ReferenceWork

ROOT = Path(__file__).resolve().parents[2]
TASKS = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class Scenario:
    name: str
    tasks: tuple[str, ...]
    limit: int
    num_fewshot: int | None = None
    chat_template: bool = False
    system_instruction: str | None = None
    stock_tasks: bool = False
    """Whether lm-eval's own tasks are among them, which the reference takes long to index."""


@dataclass(frozen=True)
class Found:
    results: dict[str, dict[str, Any]]
    groups: dict[str, dict[str, Any]]
    samples: dict[str, list[dict[str, Any]]]
    infer: InferDone | None = None


def mirror() -> Path | None:
    """The folder with real datasets, where there is one: EVALYARD_TEST_DATASETS, or shared/hub beside the checkout."""
    given = os.environ.get("EVALYARD_TEST_DATASETS")
    folder = Path(given) if given else ROOT.parent / "shared" / "hub" / "datasets"
    return folder if folder.is_dir() else None


def by_evalyard(scenario: Scenario, engine: EngineFamily, model: Path, folder: Path) -> Found:
    """prepare, infer, score: the programs that workers run."""
    benchmark = Benchmark(name="Fidelity", tasks=scenario.tasks, num_fewshot=scenario.num_fewshot)
    plan = Plan(
        model=Model(name="org/tiny", revision="sha256-0", folder=str(model), precision=Precision.FLOAT32),
        model_folder=model,
        benchmarks=(benchmark,),
        engine=engine,
        device_type="cpu",
        folder=folder / "run",
        responses=folder / "responses",
        chat_template=scenario.chat_template,
        system_instruction=scenario.system_instruction,
        limit=scenario.limit,
        task_folders=(str(TASKS),),
    )
    outcome = evaluate(plan, lambda *_: None)
    (scored,) = outcome.benchmarks
    assert scored.results is not None, scored.sentence
    return _read(scored.results, outcome.infer)


def by_lm_eval(scenario: Scenario, back_end: BackEnd, model: Path, folder: Path) -> Found:
    """One fresh process, a fresh datasets cache, lm-eval's own back end."""
    benchmark = ReferenceBenchmark(
        name="Fidelity",
        tasks=scenario.tasks,
        num_fewshot=scenario.num_fewshot,
        limit=scenario.limit,
        chat_template=scenario.chat_template,
        fewshot_as_multiturn=scenario.chat_template,
        system_instruction=scenario.system_instruction,
    )
    work = ReferenceWork(
        back_end=back_end,
        model_name="org/tiny",
        model_folder=str(model),
        dtype="float32",
        benchmarks=(benchmark,),
        task_folders=(str(TASKS),),
        stock_tasks=scenario.stock_tasks,
    )
    environment = {
        "HF_DATASETS_CACHE": str(folder / "datasets"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    if found := mirror():
        environment["EVALYARD_DATASETS"] = str(found)
    try:
        done = launch.run(work, folder / "run", environment=environment)
    except launch.ReferenceFailed as failed:
        raise AssertionError(f"{failed.sentence}\n{failed.log.read_text(errors='replace')[-4096:]}") from failed
    return _read(Path(done.benchmarks[0].results))


def _read(results: Path, infer: InferDone | None = None) -> Found:
    record = json.loads((results / "results.json").read_text(encoding="utf-8"))
    return Found(record["results"], record.get("groups", {}), read_samples(results), infer)
