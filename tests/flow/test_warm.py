"""Engines that outlive their work, through the whole system: hub, broker, worker and stage program."""

import signal
from pathlib import Path

import pytest
from sqlmodel import select

from orchestrator.lifecycle import EvaluationState
from orchestrator.tables import Worker
from tests.fleet import Fleet
from tests.services import wait_until

pytestmark = pytest.mark.flow


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_next_evaluation_of_a_model_is_answered_by_the_engine_that_is_up(fleet: Fleet, models: dict[str, Path]):
    fleet.kill("engine", signal.SIGTERM)
    fleet.worker_settings["WARM_SECONDS"] = "900"
    fleet.start("engine")
    first = fleet.submit(models["one"], limit=10, suite="short")
    assert fleet.wait_for(first).state is EvaluationState.FINISHED
    engine = list(fleet.stages())
    assert len(engine) == 1
    commit = fleet.infer_job(first).identity["weights"]
    warm = select(Worker.warm).where(Worker.name == "engine-1")
    wait_until(lambda: fleet.rows(warm) == [[commit]], "the hub knows that the engine is up")

    second = fleet.submit(models["one"], limit=10, suite="sharing")

    assert fleet.wait_for(second).state is EvaluationState.FINISHED
    assert list(fleet.stages()) == engine
    job = fleet.infer_job(second)
    assert job.result["computed"] > 0
    assert job.result["reused"] > 0  # what both suites ask
    assert len(set(fleet.computed(second))) == fleet.computed(second).total()

    other = fleet.submit(models["two"], limit=10, suite="short")
    assert fleet.wait_for(other).state is EvaluationState.FINISHED
    assert set(fleet.stages()).isdisjoint(engine)
