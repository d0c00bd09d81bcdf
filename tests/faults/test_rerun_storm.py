"""A storm of kills in the middle of a re-run: whoever reads the board sees one version whole, at every moment.

`make test-full` runs it, or `pytest tests/faults/test_rerun_storm.py`.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlmodel import col, func, select

from orchestrator import db
from orchestrator.lifecycle import RerunState
from orchestrator.reruns import plans, switching
from orchestrator.suites import Suite, read_suite
from orchestrator.tables import Evaluation, Rerun, Score, ShownVersion
from tests.board_reader import BoardReader
from tests.faults.disturbances import Disturbances
from tests.faults.run import LEASE_SECONDS, Models
from tests.faults.storm import pause
from tests.faults.strikes import CONTROLS, Strikes, kept
from tests.fleet import Fleet
from tests.flow.test_rerun import CHANGED
from tests.services import processes_with, valkey, wait_until

KILLS = (
    "kill a control process",
    "kill a harness worker",
    "kill an engine worker",
    "kill a stage",
    "kill a control process",
)
EVALUATIONS = 3
PAUSE_SECONDS = 2.0
"""Between two kills, on average: a stage of the harness must have a chance to end."""
MOST_SECONDS = 800.0
"""For each part, on a machine that does much else."""


@pytest.mark.flow
@pytest.mark.slow
def test_a_reader_never_sees_an_average_over_mixed_versions_in_a_storm_of_kills(tmp_path: Path) -> None:
    models = Models(tmp_path / "models")
    with valkey(tmp_path / "valkey") as broker:
        fleet = Fleet(
            tmp_path / "data",
            f"sqlite:///{tmp_path / 'evalyard.db'}",
            broker,
            lease_seconds=LEASE_SECONDS,
            engine_settings={"delay_seconds": 0.02, "batch": 8},
        )
        kept(fleet).mkdir()
        (fleet.folder / "artifacts").symlink_to(kept(fleet))
        strikes = Strikes(fleet, Disturbances(fleet, CONTROLS))
        try:
            strikes.revive()
            _storm(fleet, strikes, models)
        finally:
            strikes.calm()
            fleet.stop()
    assert processes_with(f"{tmp_path}/") == {}


def _storm(fleet: Fleet, strikes: Strikes, models: Models) -> None:
    old = [fleet.submit(models(number)) for number in range(EVALUATIONS)]
    _wait(strikes, lambda: all(fleet.evaluation(one).average is not None for one in old), "the old ones are there")
    file = fleet.folder / "suites" / "flow.toml"
    file.write_text(CHANGED)
    suites: dict[str, Suite] = dict(fleet.suites) | {"flow": read_suite(file)}
    with BoardReader(fleet.settings, "flow", {"1": fleet.suites["flow"], "2": suites["flow"]}) as reader:
        before = reader.read()
        with db.session(fleet.engine) as session:
            plan = plans.make_plan(session, suites, suite="flow", now=datetime.now(UTC)).id
        assert plan is not None
        draw = random.Random(5)

        def state() -> RerunState:
            return fleet.rows(select(Rerun.state).where(Rerun.id == plan))[0]

        struck = _rage(strikes, draw, faults=2)
        _wait(strikes, lambda: state() is RerunState.READY, "everything is compared")
        with db.session(fleet.engine) as session:
            plans.start(session, plan, choices=plans.Choices(coverage_goal=1.0), now=datetime.now(UTC))
        struck += _rage(strikes, draw, faults=8, until=lambda: state() is RerunState.FINISHED)
        strikes.calm()
        _wait(strikes, lambda: state() is RerunState.FINISHED, "the re-run is through")
        assert len(struck) > 3
        again = fleet.rows(select(Evaluation).where(Evaluation.rerun_id == plan))
        assert sorted(one.rerun_of for one in again) == old
        assert all(one.average is not None for one in again)
        twice = select(Score.evaluation_id).where(Score.task == "", Score.metric == "value")
        counted = fleet.rows(twice.group_by(col(Score.evaluation_id), col(Score.benchmark)).having(func.count() > 1))
        assert counted == []
        assert len(fleet.rows(select(ShownVersion).where(ShownVersion.rerun_id == plan))) == 1
        assert reader.read()["suite_version"] == "2"
        with db.session(fleet.engine) as session:
            switching.back(session, suites, suite="flow", now=datetime.now(UTC))
        after = reader.read()
        assert {name: after[name] for name in ("ranked", "apart", "suite_version")} == {
            name: before[name] for name in ("ranked", "apart", "suite_version")
        }
    print(f"{len(struck)} kills, {reader.answers} answers read")
    assert reader.faults == []
    assert reader.seen == ["1", "2", "1"]


def _rage(
    strikes: Strikes, draw: random.Random, *, faults: int, until: Callable[[], bool] = lambda: False
) -> list[str]:
    """Kill so many processes, one after the other, or until there is nothing left to disturb; which."""
    made: list[str] = []
    while len(made) < faults and not until():
        strikes.revive()
        kind = draw.choice(KILLS)
        if strikes.make(kind, draw):
            made.append(kind)
            pause(draw.expovariate(1 / PAUSE_SECONDS))
        else:
            pause(0.1)
    return made


def _wait(strikes: Strikes, done: Callable[[], bool], what: str) -> None:
    def is_done() -> bool:
        strikes.revive()
        return done()

    wait_until(is_done, what, seconds=MOST_SECONDS)
