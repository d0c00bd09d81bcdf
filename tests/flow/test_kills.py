"""Processes killed in the middle of an evaluation: it finishes, nothing is lost, nothing is counted twice."""

import math
import signal
import time
from pathlib import Path

import pytest

from orchestrator.lifecycle import EvaluationState
from tests.fleet import DELAY_SECONDS, SEAL_SECONDS, Fleet
from tests.services import wait_until
from workers.sheets import read_requests

pytestmark = pytest.mark.flow

REQUESTS_PER_SEAL = math.ceil(SEAL_SECONDS / DELAY_SECONDS) + 4
"""Answered in a seal interval, and in the batch that was under way."""

ON_POSTGRESQL = pytest.mark.parametrize(
    "database_url", ["postgresql", pytest.param("sqlite", marks=pytest.mark.slow)], indirect=True
)
"""On SQLite a short storm of the same kills is in the quick set (`tests/faults`)."""


@ON_POSTGRESQL
def test_kills_of_engine_child_worker_and_control_lose_nothing_and_count_nothing_twice(
    fleet: Fleet, models: dict[str, Path]
):
    undisturbed = fleet.submit(models["one"], limit=20)
    assert fleet.wait_for(undisturbed).state is EvaluationState.FINISHED
    evaluation = fleet.submit(models["two"], limit=20)
    began = time.monotonic()

    fleet.wait_for_middle(evaluation)
    fleet.kill_stage()
    killed_child = time.monotonic()
    sealed = len(fleet.computed(evaluation))
    sealed = fleet.wait_for_middle(evaluation, more_than=sealed)
    print("seconds from killed child to its next sealed segment:", time.monotonic() - killed_child)

    fleet.kill("engine")
    killed_worker = time.monotonic()
    wait_until(lambda: not fleet.stages(), "the child has died with its worker")
    sealed = len(fleet.computed(evaluation))
    fleet.start("engine")
    sealed = fleet.wait_for_middle(evaluation, more_than=sealed)
    print("seconds from killed worker to its next sealed segment:", time.monotonic() - killed_worker)

    fleet.kill("control")
    sealed_without_control = fleet.wait_for_middle(evaluation, more_than=sealed)
    assert sealed_without_control > sealed
    fleet.start("control")

    finished = fleet.wait_for(evaluation)
    print("seconds in all:", time.monotonic() - began)
    assert finished.state is EvaluationState.FINISHED
    assert finished.average == fleet.evaluation(undisturbed).average
    assert fleet.scores(evaluation) == fleet.scores(undisturbed)

    computed = fleet.computed(evaluation)
    assert set(computed) == set(fleet.computed(undisturbed))
    assert computed.total() - len(computed) <= 3 * REQUESTS_PER_SEAL
    print("requests computed twice:", computed.total() - len(computed))
    job = fleet.infer_job(evaluation)
    assert job.requests_total == job.result["computed"] + job.result["reused"] == len(computed)
    # A killed stage is started again by its worker; a killed worker's attempt is lost and another one made.
    assert fleet.infer_outcomes(evaluation) == ["expired", "completed"]
    assert (job.model_failures, job.infrastructure_failures) == (0, 1)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_request_that_kills_the_engine_fails_its_benchmark_alone(fleet: Fleet, models: dict[str, Path]):
    fleet.kill("engine", signal.SIGTERM)
    evaluation = fleet.submit(models["one"], limit=20)
    sheet = fleet.wait_for_sheet(evaluation, "Letters")
    culprit = list(read_requests(sheet))[40]
    context = {request.id for request in read_requests(sheet) if request.context == culprit.context}
    fleet.engine_settings = {"dies_at": culprit.id}
    fleet.start("engine")

    finished = fleet.wait_for(evaluation)

    assert (finished.state, finished.average) == (EvaluationState.FINISHED, None)
    assert {benchmark for benchmark, *_ in fleet.scores(evaluation)} == {"Sums"}
    assert "No score for Letters, so there is no average." in finished.sentence
    assert any(request in finished.sentence for request in context)
    assert "(task demo_letters, document" in finished.sentence
    assert fleet.infer_outcomes(evaluation) == ["completed"]
    assert not context & set(fleet.computed(evaluation))


@ON_POSTGRESQL
def test_a_worker_that_is_told_to_stop_gives_its_work_back_at_no_cost(fleet: Fleet, models: dict[str, Path]):
    evaluation = fleet.submit(models["one"], limit=25, suite="short")
    fleet.wait_for_middle(evaluation)
    fleet.kill("engine", signal.SIGTERM)
    assert fleet.stages() == {}
    fleet.start("engine")
    assert fleet.wait_for(evaluation).state is EvaluationState.FINISHED
    job = fleet.infer_job(evaluation)
    assert (job.model_failures, job.infrastructure_failures) == (0, 0)
    assert fleet.infer_outcomes(evaluation) == ["preempted", "completed"]
    computed = fleet.computed(evaluation)
    assert computed.total() == len(computed)


@ON_POSTGRESQL
def test_a_cancelled_evaluation_leaves_no_engine_behind(fleet: Fleet, models: dict[str, Path]):
    evaluation = fleet.submit(models["one"], suite="short")
    fleet.wait_for_middle(evaluation)
    fleet.cancel(evaluation)
    wait_until(lambda: not fleet.stages(), "the engine child has ended", seconds=20)
    assert fleet.evaluation(evaluation).state is EvaluationState.CANCELLED
    assert fleet.scores(evaluation) == {}
