"""A re-run by real processes, from its plan to the switch and back: what did not change reaches no engine."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlmodel import select

from orchestrator import db
from orchestrator.lifecycle import RerunState
from orchestrator.reruns import plans, switching
from orchestrator.suites import read_suite
from orchestrator.tables import Evaluation, Job, Rerun, RerunBenchmark, Score
from orchestrator.wire import Stage
from tests.board_reader import BoardReader
from tests.fleet import SUITE, Fleet
from tests.services import processes_with, valkey, wait_until

CHANGED = SUITE.replace('version = "1"', 'version = "2"').replace(
    'tasks = ["demo_sums"]', 'tasks = ["demo_sums"]\nnum_fewshot = 1'
)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """With an engine that answers at once: what is looked at here is what reaches it."""
    with valkey(tmp_path / "valkey") as broker:
        url = f"sqlite:///{tmp_path / 'evalyard.db'}"
        made = Fleet(tmp_path / "data", url, broker, engine_settings={"delay_seconds": 0.0, "batch": 32})
        made.start("control", "harness", "engine")
        try:
            yield made
        finally:
            made.stop()
    assert processes_with(str(tmp_path)) == {}


@pytest.mark.flow
def test_a_re_run_from_its_plan_to_the_switch_and_back(fleet: Fleet, models: dict[str, Path]) -> None:
    old = [fleet.submit(models[name]) for name in ("one", "two")]
    wait_until(lambda: all(fleet.evaluation(one).average is not None for one in old), "both are evaluated", seconds=180)
    (fleet.folder / "suites" / "flow.toml").write_text(CHANGED)
    suites = dict(fleet.suites) | {"flow": read_suite(fleet.folder / "suites" / "flow.toml")}
    versions = {"1": fleet.suites["flow"], "2": suites["flow"]}
    # The control process that takes it up has read the new file.
    fleet.kill("control")
    fleet.start("control")
    with BoardReader(fleet.settings, "flow", versions) as reader:
        before = reader.read()
        with db.session(fleet.engine) as session:
            plan = plans.make_plan(session, suites, suite="flow", now=datetime.now(UTC)).id
            assert plan is not None

        def state() -> RerunState:
            return fleet.rows(select(Rerun.state).where(Rerun.id == plan))[0]

        wait_until(lambda: state() is RerunState.READY, "everything is compared", seconds=120)
        verdicts = fleet.rows(select(RerunBenchmark.benchmark, RerunBenchmark.verdict, RerunBenchmark.evaluations))
        # Equal tokenizers make equal sheets: one comparison of each benchmark stands for both models.
        assert sorted(verdicts) == [("Letters", "same", 2), ("Sums", "infer", 2)]
        with db.session(fleet.engine) as session:
            plans.start(session, plan, choices=plans.Choices(coverage_goal=1.0), now=datetime.now(UTC))
        wait_until(lambda: state() is RerunState.FINISHED, "the re-run is through", seconds=180)
        again = fleet.rows(select(Evaluation).where(Evaluation.rerun_id == plan))
        assert sorted(one.rerun_of for one in again) == old
        for one in again:
            assert one.average is not None
            (infer,) = fleet.rows(select(Job).where(Job.evaluation_id == one.id, Job.stage == Stage.INFER))
            sums = fleet.rows(select(Job).where(Job.evaluation_id == one.id, Job.benchmark == "Sums"))
            asked = next(job.result["requests"] for job in sums if job.stage is Stage.PREPARE)
            assert infer.result["computed"] == asked
            letters = [fleet.scores(number) for number in (one.rerun_of, one.id)]
            kept = [{key: value for key, value in found.items() if key[0] == "Letters"} for found in letters]
            assert kept[0] == kept[1]
        # Nobody switched by hand: the coverage that was asked for did.
        assert reader.read()["suite_version"] == "2"
        with db.session(fleet.engine) as session:
            switching.back(session, suites, suite="flow", now=datetime.now(UTC))
        after = reader.read()
        # How many evaluations the other versions have is news; rows, ranks and numbers are as they were.
        exact = ("suite_version", "benchmarks", "ranked", "apart")
        assert {name: after[name] for name in exact} == {name: before[name] for name in exact}
        wait_until(lambda: reader.seen[-1] == "1", "the other reader has looked again", seconds=30)
    assert reader.faults == []
    assert reader.seen == ["1", "2", "1"]
    assert len(fleet.rows(select(Score.id).where(Score.benchmark == "Letters"))) > 0
