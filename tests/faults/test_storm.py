"""A short storm in every test run; `make faults` lets a long one rage. And that the judge sees what he must see."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, update
from sqlmodel import col

from orchestrator import arrows, db
from orchestrator.tables import Evaluation, Event, Score
from orchestrator.wire import Stage
from tests.faults import invariants, run
from tests.orchestrator.yard import Yard
from tests.postgres import Server
from tests.services import processes_with


@pytest.mark.flow
@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_a_short_storm_loses_nothing_and_doubles_nothing(
    database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: Server | None = None if database == "sqlite" else request.getfixturevalue("postgres_server")
    report = run.run(
        tmp_path,
        seed=1 if server is None else 2,
        faults=8,
        database=server,
        shapes=run.SHORT_SHAPES,
        open_at_once=2,
    )
    print(report)
    assert report.broken == []
    assert processes_with(f"{tmp_path}/") == {}


class Judged:
    """A yard as the judge sees a fleet."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard

    def rows(self, statement):
        with db.session(self._yard.engine, read_only=True) as session:
            return list(session.exec(statement).all())


@pytest.fixture
def finished(engine: Engine) -> tuple[Yard, int]:
    yard = Yard(engine)
    yard.beat("harness-1", slots=4)
    yard.beat("engine-1")
    evaluation = yard.submit()
    yard.finish()
    return yard, evaluation


def test_the_judge_finds_nothing_in_an_undisturbed_evaluation(finished: tuple[Yard, int]) -> None:
    yard, evaluation = finished
    judged = Judged(yard)
    assert invariants.ended(judged, {evaluation: ("small", 1)}) == []
    assert invariants.history(judged) == []
    assert invariants.attempts(judged) == []


def test_the_judge_sees_a_lost_evaluation(finished: tuple[Yard, int]) -> None:
    yard, _ = finished
    assert invariants.ended(Judged(yard), {77: ("small", 1)}) == ["evaluation 77 is lost"]


def test_the_judge_sees_an_evaluation_without_its_average(finished: tuple[Yard, int]) -> None:
    yard, evaluation = finished
    accepted = {evaluation: ("small", 1)}
    assert invariants.complete(Judged(yard), accepted) == []
    with db.session(yard.engine) as session:
        session.exec(update(Evaluation).values(average=None, sentence="It broke."))
    said = f"evaluation {evaluation} lacks scores after a retry in the calm: It broke."
    assert invariants.complete(Judged(yard), accepted) == [said]


def test_the_judge_sees_what_a_stale_attempt_changed(finished: tuple[Yard, int]) -> None:
    yard, evaluation = finished
    job = yard.job(evaluation, Stage.INFER)
    with db.session(yard.engine) as session:
        session.add(
            Event(at=yard.now, evaluation_id=evaluation, job_id=job.id, attempt_id="stale", name=arrows.JOB_COMPLETED)
        )
    assert invariants.history(Judged(yard)) == [f"job {job.id}: job_completed by stale while None held it"]


def test_the_judge_sees_a_score_of_another_attempt_and_a_wrong_one(finished: tuple[Yard, int]) -> None:
    yard, evaluation = finished
    accepted = {evaluation: ("small", 1)}
    numbers = {(row.benchmark, row.task, row.metric, row.filter): row.value for row in yard.scores(evaluation)}
    right = invariants.Undisturbed({("small", 1): numbers}, {})
    assert invariants.scores(Judged(yard), accepted, right) == []
    with db.session(yard.engine) as session:
        session.exec(update(Score).where(col(Score.benchmark) == "ARC").values(attempt_id="stale", value=1.0))
    found = invariants.scores(Judged(yard), accepted, right)
    assert found[0] == f"evaluation {evaluation} ARC has scores of another attempt"
    assert "undisturbed" in found[1]


@pytest.mark.flow
@pytest.mark.slow
def test_ctrl_c_ends_a_storm_with_what_it_showed_so_far(tmp_path: Path) -> None:
    folder = tmp_path / "storm"
    command = [sys.executable, "-m", "tests.faults.run", "--faults", "1000", "--keep", str(folder)]
    # As a terminal does it: to every process of the group.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0) as ran:
        assert ran.stdout is not None
        for line in ran.stdout:
            if " 2/1000 " in line:
                break
        os.killpg(ran.pid, signal.SIGINT)
        told = ran.stdout.read()
    assert ran.returncode == 130, told
    assert "Traceback" not in told
    for said in ("Stopping the storm", "Seed 1 on sqlite: ", "Stopped by Ctrl-C: ", "Invariants broken: 0"):
        assert said in told, told
    assert processes_with(f"{folder}/") == {}
