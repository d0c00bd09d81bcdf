"""Inference as `evalyard evaluate` and `evalyard infer` run it, with the scripted engine and sheets made by hand."""

import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire import Benchmark, EngineFamily, EngineInfo, FailureKind, InferDone, Model, Precision
from tests.services import environment_of, processes_with
from tests.tiny import build_tiny_model
from tests.workers.engine.factories import infer_work, letter_choice, responses_in, write_sheet
from workers import segments
from workers.local import pipeline
from workers.local.local_stage import log_of, run_child
from workers.local.pipeline import Plan
from workers.local.slices import devices_needed, slices_of
from workers.sheets import Request


def plan(folder: Path, sheets: dict[str, list[Request]], **settings: Any) -> Plan:
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text('{"vocab_size": 1000}')
    for name, requests in sheets.items():
        write_sheet(folder / "run" / "sheets" / name, requests, benchmark=name)
    return Plan(
        model=Model(name="tiny", revision="sha256-0", precision=Precision.FLOAT32),
        model_folder=model,
        benchmarks=tuple(Benchmark(name=name, tasks=(name,)) for name in sheets),
        engine=EngineFamily.SCRIPTED,
        device_type="cpu",
        folder=folder / "run",
        responses=folder / "responses",
        settings=settings,
        seal_seconds=0.05,
    )


def questions(first: int, count: int) -> list[Request]:
    return [request for document in range(first, first + count) for request in letter_choice(document)]


def test_a_request_that_kills_the_engine_costs_one_benchmark_and_all_else_is_in_the_store(tmp_path: Path) -> None:
    sick, well = questions(0, 10), questions(50, 10)
    reports: list[str] = []
    made = plan(tmp_path, {"sick": sick, "well": well}, dies_at=sick[20].id, batch=8, delay_seconds=0.01)

    done = pipeline.infer_all(made, lambda stage, what, done, total: reports.append(what))

    answered = [response for folder in (tmp_path / "responses").glob("*/*") for response in responses_in(folder)]
    culprits = {request.id for request in sick[20:24]}
    assert {response.id for response in answered} == {request.id for request in sick + well} - culprits
    assert (done.computed, len(done.restarts)) == (76, 2)
    assert set(done.restarts) <= set(reports)
    lacking = pipeline.lacking_answers(done, tmp_path / "log")
    assert list(lacking) == ["sick"]
    assert (lacking["sick"].failure, lacking["sick"].done) == (FailureKind.ENGINE, None)
    assert lacking["sick"].sentence == done.unanswered[0].sentence


def test_killed_again_and_again_it_keeps_what_each_stage_sealed(tmp_path: Path) -> None:
    asked = questions(0, 15)
    done = pipeline.infer_all(
        plan(tmp_path, {"one": asked}, crash_after=25, batch=5, delay_seconds=0.01), lambda *_: None
    )
    answered = [response for folder in (tmp_path / "responses").glob("*/*") for response in responses_in(folder)]
    assert {response.id for response in answered} == {request.id for request in asked}
    assert done.computed == 60
    assert len(done.restarts) >= 2


def answered(folder: Path) -> list[str]:
    return [response.id for path in (folder / "responses").glob("*/*") for response in responses_in(path)]


def test_each_device_answers_a_slice_and_all_add_up(tmp_path: Path) -> None:
    asked = questions(0, 100)
    made = replace(plan(tmp_path, {"one": asked}, batch=8, delay_seconds=0.002), devices=("0", "1", "4"))
    told: list[tuple[int, int]] = []

    done = pipeline.infer_all(made, lambda stage, what, done, total: told.append((done, total)))

    assert sorted(answered(tmp_path)) == sorted(request.id for request in asked)
    assert (done.computed, done.reused, done.tokens_computed) == (400, 0, sum(one.length for one in asked))
    counts = [done for done, total in told if total]
    assert counts == sorted(counts)
    assert told[-1] == (400, 400)
    headers = [segments.read(path)[0] for path in (tmp_path / "responses").glob("*/*/*.zst")]
    assert len({header.attempt for header in headers}) == 3


def test_what_was_known_before_counts_once_whatever_the_number_of_devices(tmp_path: Path) -> None:
    asked = questions(0, 20)
    first = plan(tmp_path, {"one": asked})
    pipeline.infer_all(first, lambda *_: None)
    again = pipeline.infer_all(replace(first, devices=("0", "1")), lambda *_: None)
    assert (again.computed, again.reused) == (0, 80)


def test_each_engine_sees_its_own_devices(tmp_path: Path) -> None:
    made = replace(plan(tmp_path, {"one": questions(0, 400)}, batch=2, delay_seconds=0.05), devices=("3", "GPU-aa"))
    stopped = threading.Event()
    seen: set[str] = set()

    def report(stage: str, what: str, done: int, total: int) -> None:
        for pid, command in processes_with(str(tmp_path)).items():
            if "engine.infer" in command:
                # A process that the engine forks has its command line for a moment, and may be gone by now.
                seen.add(environment_of(pid).get("CUDA_VISIBLE_DEVICES", "gone"))
        if {"3", "GPU-aa"} <= seen and not stopped.is_set():
            stopped.set()
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        pipeline.infer_all(made, report)
    assert seen - {"gone"} == {"3", "GPU-aa"}
    assert processes_with(str(tmp_path)) == {}


def test_when_one_slice_fails_what_the_others_answered_is_kept_and_not_asked_again(tmp_path: Path) -> None:
    asked = questions(0, 300)
    made = replace(plan(tmp_path, {"one": asked}, batch=4, delay_seconds=0.01, nan_at=20), devices=("0", "1"))

    with pytest.raises(pipeline.StageError) as caught:
        pipeline.infer_all(made, lambda *_: None)

    assert caught.value.kind is FailureKind.INVALID_OUTPUT
    kept = answered(tmp_path)
    assert 20 <= len(kept) < 1200
    assert processes_with(str(tmp_path)) == {}
    again = pipeline.infer_all(replace(made, settings={}), lambda *_: None)
    assert (again.computed, again.reused) == (1200 - len(kept), len(kept))
    assert len(answered(tmp_path)) == 1200


def test_ctrl_c_seals_every_slice(tmp_path: Path) -> None:
    made = replace(plan(tmp_path, {"one": questions(0, 400)}, batch=2, delay_seconds=0.02), devices=("0", "1"))
    said: list[str] = []

    def report(stage: str, what: str, done: int, total: int) -> None:
        said.append(what)
        if done >= 20 and "stopping: what is computed is sealed" not in said:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        pipeline.infer_all(made, report)

    assert "stopping: what is computed is sealed" in said
    assert {path.name.split("-")[0] for path in (tmp_path / "responses").glob("*/*")} == {"local"}
    assert len(list((tmp_path / "responses").glob("*/*"))) == 2
    assert processes_with(str(tmp_path)) == {}
    assert isinstance(pipeline.infer_all(replace(made, settings={}), lambda *_: None), InferDone)


@pytest.mark.parametrize(
    ("devices", "needed", "environments"),
    [
        ((), 1, [""]),
        (("0",), 1, ["0"]),
        (("0", "1", "2"), 1, ["0", "1", "2"]),
        (("0", "1", "2", "3", "4"), 2, ["0,1", "2,3"]),
        (("0", "1"), 2, ["0,1"]),
        (("0", "1"), 4, ["0,1"]),
    ],
)
def test_as_many_engines_as_fit_share_the_devices(
    tmp_path: Path, devices: tuple[str, ...], needed: int, environments: list[str]
) -> None:
    found = slices_of(infer_work({}), tmp_path / "responses", devices, needed=needed)
    assert [one.environment.get("CUDA_VISIBLE_DEVICES", "") for one in found] == environments
    assert [(one.work.slice_index, one.work.slice_count) for one in found] == [
        (index, len(found)) for index in range(len(found))
    ]
    assert len({one.out for one in found} | {one.work.attempt for one in found}) == 2 * len(found)


def test_an_engine_takes_the_devices_that_its_model_needs(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model", hidden=128)
    info = EngineInfo(
        family=EngineFamily.VLLM, version="1", device_type="cuda", device="x", device_count=4, memory_bytes=80 << 30
    )
    work = infer_work({}, engine=EngineFamily.VLLM, model_folder=str(model))
    assert devices_needed(work, info) == 1
    assert devices_needed(work, info.model_copy(update={"memory_bytes": (2 << 30) + (6 << 20)})) == 4
    assert devices_needed(work.model_copy(update={"settings": {"tensor_parallel_size": 2}}), info) == 2
    assert devices_needed(work.model_copy(update={"engine": EngineFamily.TRANSFORMERS}), info) == 1
    assert devices_needed(work, info.model_copy(update={"device_type": "cpu"})) == 1


def test_runs_of_a_model_that_begin_in_the_same_second_have_a_folder_each() -> None:
    assert len({pipeline.new_name("acme/model") for _ in range(50)}) == 50


def test_an_engine_that_says_nothing_is_told_of_with_its_log_and_ended_after_an_hour(tmp_path: Path) -> None:
    asked = questions(0, 10)
    write_sheet(tmp_path / "sheet", asked, benchmark="one")
    (tmp_path / "config.json").write_text('{"vocab_size": 1000}')
    work = infer_work(
        {"one": tmp_path / "sheet"}, model_folder=str(tmp_path), settings={"hangs_at": asked[20].id, "batch": 8}
    )
    clock = 0.0

    def now() -> float:
        nonlocal clock
        clock += 300.0
        return clock

    said: list[str] = []
    outcome = run_child(
        work, tmp_path / "out", lambda event: said.append(event.get("phase", "")), stopping=threading.Event(), now=now
    )
    silent = [phase for phase in said if phase.startswith("no word for")]
    assert silent[0].endswith(f": see {log_of(tmp_path / 'out')}")
    assert len(silent) >= 5
    assert (outcome.failure, outcome.done) == (FailureKind.ENGINE, None)
    assert "it hangs" in outcome.sentence
