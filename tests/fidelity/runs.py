"""Runs the same benchmark twice: through Evalyard's three stages, and by lm-eval in a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.wire import Benchmark, EngineFamily, InferDone, Model, Precision
from workers.harness.folders import SHIPPED_TASKS
from workers.pipeline import Plan, evaluate
from workers.sheets import read_lines

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
    record = json.loads((scored.results / "results.json").read_text(encoding="utf-8"))
    samples = {
        path.name.removeprefix("samples_").removesuffix(".jsonl.zst"): list(map(msgspec.json.decode, read_lines(path)))
        for path in sorted(scored.results.glob("samples_*.jsonl.zst"))
    }
    return Found(record["results"], record.get("groups", {}), samples, outcome.infer)


def by_lm_eval(scenario: Scenario, backend: str, model: Path, folder: Path) -> Found:
    """One fresh process, a fresh datasets cache, lm-eval's own back end."""
    folder.mkdir(parents=True, exist_ok=True)
    work = {
        "backend": backend,
        "model": str(model),
        "tasks": list(scenario.tasks),
        "num_fewshot": scenario.num_fewshot,
        "limit": scenario.limit,
        "chat_template": scenario.chat_template,
        "system_instruction": scenario.system_instruction,
        "gen_kwargs": {},
        "task_folders": [str(TASKS), str(SHIPPED_TASKS)],
        "stock_tasks": scenario.stock_tasks,
        "datasets": {"evalyard/demo": str(SHIPPED_TASKS / "demo")},
        "mirror": str(mirror() or ""),
    }
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
    environment = os.environ | {
        "HF_DATASETS_CACHE": str(folder / "datasets"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *_stub(backend, folder)]),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCHDYNAMO_DISABLE": "1",
    }
    log = folder / "reference.log"
    with log.open("wb") as out:
        subprocess.run(
            [sys.executable, "-m", "tests.fidelity.reference", str(folder / "work.json"), str(folder / "out.json")],
            check=False,
            env=environment,
            cwd=folder,
            stdout=out,
            stderr=out,
        )
    assert (folder / "out.json").exists(), log.read_text(encoding="utf-8", errors="replace")[-3000:]
    record = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return Found(record["results"], record["groups"], record["samples"])


def _stub(backend: str, folder: Path) -> list[str]:
    """lm-eval asks for a package called `vllm`; the CPU build is called otherwise. For this one process it is both."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("vllm-cpu")
    except PackageNotFoundError:
        return []
    if backend != "vllm":
        return []
    record = folder / "stub" / f"vllm-{found}.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {found}+cpu\n", encoding="utf-8")
    return [str(folder / "stub")]
