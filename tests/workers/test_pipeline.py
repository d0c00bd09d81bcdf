"""Inference as `evalyard evaluate` and `evalyard infer` run it, with the scripted engine and sheets made by hand."""

from pathlib import Path
from typing import Any

from orchestrator.wire import Benchmark, EngineFamily, FailureKind, Model, Precision
from tests.workers.engine.factories import letter_choice, responses_in, write_sheet
from workers import pipeline
from workers.pipeline import Plan
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
