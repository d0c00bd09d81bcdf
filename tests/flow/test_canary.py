"""A canary by real processes: a build that answers as before gets to work, one that drifts is kept out until let in."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlmodel import col, select

from orchestrator import db
from orchestrator.canaries import canary
from orchestrator.lifecycle import CanaryState, EvaluationState
from orchestrator.tables import Attempt, Canary, CanaryRun, Job
from orchestrator.wire import Stage, identity_digest
from tests.fleet import Fleet
from tests.services import processes_with, valkey, wait_until

QUICK = {"delay_seconds": 0.0, "batch": 32}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with valkey(tmp_path / "valkey") as broker:
        url = f"sqlite:///{tmp_path / 'evalyard.db'}"
        made = Fleet(tmp_path / "data", url, broker, engine_settings=QUICK)
        made.start("control", "harness", "engine")
        try:
            yield made
        finally:
            made.stop()
    assert processes_with(str(tmp_path)) == {}


def runs(fleet: Fleet) -> list[CanaryRun]:
    return fleet.rows(select(CanaryRun).order_by(col(CanaryRun.id)))


def answered_on(fleet: Fleet, evaluation: int) -> list[str]:
    infer = select(Job.id).where(Job.evaluation_id == evaluation, Job.stage == Stage.INFER)
    return fleet.rows(select(Attempt.worker).where(col(Attempt.job_id).in_(infer)))


@pytest.mark.flow
@pytest.mark.slow
def test_an_equal_build_gets_to_work_and_a_drifting_one_is_kept_out_until_it_is_let_in(
    fleet: Fleet, models: dict[str, Path]
) -> None:
    first = fleet.submit(models["one"])
    assert fleet.wait_for(first).state is EvaluationState.FINISHED
    identity = fleet.infer_job(first).identity
    stored = fleet.store.list(f"responses/{identity_digest(identity)}")
    with db.session(fleet.engine) as session:
        canary.set_canary(session, first, asked=60, by="ada", now=datetime.now(UTC))
    # Killed while the sample is taken or the run is made, it goes on.
    fleet.kill("control")
    fleet.start("control")
    wait_until(lambda: [run.state.value for run in runs(fleet)] == ["passed"], "the first build passed", seconds=120)
    (kept,) = fleet.rows(select(Canary))
    assert kept.state is CanaryState.PRESENT
    (run,) = runs(fleet)
    assert (run.worker, run.drift["mean"], run.drift["changed_choices"], run.drift["changed_texts"]) == (
        "engine-1", 0, 0, 0,
    )  # fmt: skip
    assert run.drift["scored"] > 0
    assert run.drift["texts"] > 0
    # Other answers, told by another digest of the engine's settings.
    fleet.engine_settings = QUICK | {"drift": 2.0}
    fleet.start("engine-2")
    wait_until(lambda: len(runs(fleet)) == 2 and runs(fleet)[1].ended_at is not None, "it was compared", seconds=120)
    drifted = runs(fleet)[1]
    assert (drifted.state.value, drifted.worker) == ("drifted", "engine-2")
    assert 0.8 < drifted.drift["mean"] < 1.2
    fleet.kill("engine")
    second = fleet.submit(models["two"])
    prepared = select(Job).where(Job.evaluation_id == second, Job.stage == Stage.INFER, Job.state == "queued")
    wait_until(lambda: fleet.rows(prepared), "its inference waits", seconds=120)
    # The first build's other worker answers it, without a canary of its own.
    fleet.engine_settings = QUICK
    fleet.start("engine-3")
    assert fleet.wait_for(second).state is EvaluationState.FINISHED
    # Before the hub misses engine-1 it may still give it the work; engine-2 is given none.
    assert set(answered_on(fleet, second)) - {"engine-1"} == {"engine-3"}
    assert len(runs(fleet)) == 2
    fleet.kill("engine-3")
    with db.session(fleet.engine) as session:
        canary.accept(session, drifted.build, by="ada", now=datetime.now(UTC))
    third = fleet.submit(models["one"], limit=4)
    assert fleet.wait_for(third).state is EvaluationState.FINISHED
    assert fleet.store.list(f"responses/{identity_digest(identity)}") == stored
