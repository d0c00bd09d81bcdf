from datetime import timedelta

import pytest
from sqlmodel import select

from orchestrator import db
from orchestrator.notes import FORECAST_SECONDS
from orchestrator.scheduling.forecasts import EVERY, Forecaster
from orchestrator.scheduling.places import Policy
from orchestrator.tables import Submission
from orchestrator.wire import Forecast, Precision, Stage
from tests.orchestrator.yard import Yard

POLICY = Policy(silent_after=timedelta(hours=1))


@pytest.fixture
def told() -> list[tuple[str, list[str]]]:
    """Workers and the revisions that they were told to expect, in order."""
    return []


@pytest.fixture
def forecaster(yard: Yard, told: list[tuple[str, list[str]]]) -> Forecaster:
    def tell(worker: str, forecast: Forecast) -> None:
        told.append((worker, [model.revision for model in forecast.models]))

    return Forecaster(yard.engine, tell, POLICY)


def look(yard: Yard, forecaster: Forecaster, *, after: timedelta = EVERY) -> None:
    yard.now += after
    forecaster.look(yard.now)


def test_a_worker_is_told_the_next_model_while_it_computes_another(
    yard: Yard, forecaster: Forecaster, told: list[tuple[str, list[str]]]
) -> None:
    yard.submit(revision="one")
    infer = yard.infer_order()
    yard.submit(revision="two")
    look(yard, forecaster)
    assert told == []  # nothing is known of its config and tokenizer yet
    arc, mmlu = yard.tick()
    yard.complete(arc)
    look(yard, forecaster)
    look(yard, forecaster)
    assert told == [("engine-1", ["two"])]
    yard.complete(mmlu)
    yard.complete(infer)
    yard.finish()
    look(yard, forecaster)
    assert told[1:] == [("engine-1", [])]


def test_a_forecast_is_repeated_before_the_broker_forgets_it(
    yard: Yard, forecaster: Forecaster, told: list[tuple[str, list[str]]]
) -> None:
    yard.submit(revision="one")
    yard.infer_order()
    yard.submit(revision="two")
    for order in yard.tick():
        yard.complete(order)
    for _ in range(3):
        look(yard, forecaster, after=timedelta(seconds=FORECAST_SECONDS / 2))
    assert told == [("engine-1", ["two"])] * 3


def test_a_look_that_comes_too_soon_asks_nothing(
    yard: Yard, forecaster: Forecaster, told: list[tuple[str, list[str]]]
) -> None:
    forecaster.look(yard.now)
    yard.submit(revision="one")
    yard.prepare_all()
    forecaster.look(yard.now)
    assert told == []


def test_evaluations_of_one_model_are_forecast_once_and_folders_never(
    yard: Yard, forecaster: Forecaster, told: list[tuple[str, list[str]]]
) -> None:
    for revision in ("one", "one", "sha256-local"):
        yard.submit(revision=revision)
    with db.session(yard.engine) as session:
        for row in session.exec(select(Submission).where(Submission.revision == "sha256-local")):
            row.folder = "/models/local"
    yard.beat("harness-1", slots=6)
    for order in yard.tick():
        yard.complete(order)
    yard.beat("engine-1", slots=3)
    look(yard, forecaster)
    assert told == [("engine-1", ["one"])]


def test_a_worker_that_says_it_has_the_weights_gets_the_job(yard: Yard) -> None:
    yard.submit(revision="one")
    yard.beat("harness-1", slots=6)
    for order in yard.tick():
        yard.complete(order)
    yard.beat("engine-1")
    yard.beat("engine-2", weights=("other", "one"))
    (infer,) = yard.tick()
    assert (infer.work.stage, infer.work.model.precision) == (Stage.INFER, Precision.FLOAT32)
    assert yard.sent[-1][0] == "engine-2"
