"""A worker and the harness that an order asks for."""

from pathlib import Path

from orchestrator.wire import Benchmark, FailureKind, Order, PrepareWork
from tests.workers.bench import Bench
from workers.harnesses import environments
from workers.supervisor import Supervisor


def prepare(bench: Bench, harness: str) -> Order:
    work = PrepareWork(
        model=bench.model,
        benchmark=Benchmark(name="L", tasks=("demo_letters",)),
        rules="vllm",
        limit=4,
        harness=harness,
    )
    return Order(attempt="a1", job=1, evaluation=1, work=work, lease_seconds=600.0, output="sheets/1/L/a1")


def harness_worker(bench: Bench, folder: Path) -> Supervisor:
    settings = bench.settings.model_copy(update={"worker_kind": "harness", "harnesses": folder})
    return Supervisor(settings, hub=bench.hub, store=bench.store, weights=bench.weights)


def test_an_order_for_a_harness_that_is_not_here_is_given_back_with_what_to_do(bench: Bench, tmp_path: Path) -> None:
    harness_worker(bench, tmp_path).run(prepare(bench, "lm_eval 9.9.9"))
    released = bench.hub.updates[-1]
    assert (released.event, released.failure) == ("released", FailureKind.HARNESS)
    assert released.sentence.endswith("Add it: evalyard harness add lm-eval==9.9.9")


def test_a_stage_in_the_wrong_environment_refuses_the_work(bench: Bench, tmp_path: Path) -> None:
    """The folder says one version, and another is installed in it: nothing is prepared with that."""
    mine = environments.own()
    assert mine is not None
    place = tmp_path / environments.folder_name("9.9.9")
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").write_text(f'#!/bin/sh\nexec "{mine.python}" "$@"\n')
    (place / "bin" / "python").chmod(0o755)
    (place / environments.MANIFEST).write_text('{"harness": "lm_eval 9.9.9", "packages": {}}')
    harness_worker(bench, tmp_path).run(prepare(bench, "lm_eval 9.9.9"))
    failed = bench.hub.updates[-1]
    assert (failed.event, failed.failure) == ("failed", FailureKind.HARNESS)
    assert f"This work needs lm_eval 9.9.9, and was started in an environment of {mine.harness}" in failed.sentence
