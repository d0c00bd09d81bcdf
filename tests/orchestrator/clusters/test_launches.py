"""Rounds of the launcher on both databases, against a cluster that the test plays: crashes, deaths, two controls."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from orchestrator import db
from orchestrator.clusters import launches
from orchestrator.clusters.config import SlurmSettings
from orchestrator.clusters.contract import (
    ClusterAway,
    ClusterView,
    JobState,
    Launch,
    LaunchRefused,
    OwnJob,
    Waiting,
)
from orchestrator.clusters.decision import Deaths
from orchestrator.clusters.launcher import Launcher, worker_environment
from orchestrator.clusters.launches import read_deaths
from orchestrator.clusters.verdicts import ClusterVerdict, cluster_verdicts
from orchestrator.errors import NotFound
from orchestrator.lifecycle import JobState as State
from orchestrator.scheduling.places import Policy
from orchestrator.settings import HubSettings
from orchestrator.tables import Cluster, Job
from orchestrator.tables import Launch as Row
from orchestrator.wire import Stage
from tests.orchestrator.yard import Yard

SECOND = timedelta(seconds=1)


class Crash(BaseException):
    """The control process ends here."""


@dataclass
class Played:
    """A cluster that does at once what it is asked."""

    view: ClusterView = field(default_factory=lambda: ClusterView("gpu", 8, 8, 8))
    jobs: dict[str, OwnJob] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    refuse: Exception | None = None
    crash: bool = False
    """Take the job, and never say so."""

    def look(self, siblings: Collection[str] = ()) -> ClusterView:
        return replace(self.view, jobs=tuple(self.jobs.values()))

    def launch(self, launch: Launch, environment: Mapping[str, str]) -> str:
        if self.refuse is not None:
            raise self.refuse
        handle = str(len(self.jobs) + 1)
        self.jobs[handle] = OwnJob(launch.id, handle, JobState.PENDING)
        self.environment = environment
        if self.crash:
            raise Crash
        return handle

    def cancel(self, handle: str) -> None:
        self.be(handle, JobState.ENDED, "Slurm says CANCELLED.")

    def be(self, handle: str, state: JobState, sentence: str = "") -> None:
        self.jobs[handle] = replace(self.jobs[handle], state=state, sentence=sentence)


@dataclass
class Place:
    """A yard beside a cluster, with a clock that the test turns."""

    yard: Yard
    hub: HubSettings
    settings: SlurmSettings
    cluster: Played = field(default_factory=Played)

    def control(self) -> Launcher:
        """A control process: each that is made is another one."""
        environment = worker_environment(self.hub, self.settings, {"TOKEN": "hf_secret", "OTHER": "x"})
        return Launcher(self.yard.engine, self.settings, self.hub, Policy(), environment, system=self.cluster)

    def queue(self, count: int) -> None:
        """So many evaluations of which only the inference is left."""
        for number in range(count):
            evaluation = self.yard.submit(revision=f"{number:040x}")
            with db.session(self.yard.engine) as session:
                for job in session.exec(select(Job).where(Job.evaluation_id == evaluation)):
                    job.state = State.QUEUED if job.stage is Stage.INFER else State.COMPLETED
                    session.add(job)

    def step(self, launcher: Launcher, seconds: float = 20) -> Any:
        self.yard.now += timedelta(seconds=seconds)
        return launcher.round(self.yard.now)

    def rows(self) -> list[Row]:
        with db.session(self.yard.engine, read_only=True) as session:
            return list(session.exec(select(Row).order_by(Row.asked_at, Row.id)))

    def token(self) -> str:
        with db.session(self.yard.engine, read_only=True) as session:
            return session.exec(select(Cluster.token)).one()

    def deaths(self) -> Deaths:
        with db.session(self.yard.engine, read_only=True) as session:
            return read_deaths(session, self.settings.name, now=self.yard.now)

    def verdict(self) -> ClusterVerdict:
        with db.session(self.yard.engine, read_only=True) as session:
            (found,) = cluster_verdicts(session, self.yard.now)
            return found


@pytest.fixture
def place(engine: Engine, tmp_path: Path) -> Place:
    hub = HubSettings(data=tmp_path, engine="scripted", broker_url="redis://:hunter2@127.0.0.1:6379/0")
    settings = SlurmSettings(
        name="lent", partition="p", logs=tmp_path, command=("python",), most_workers=3, pass_on=("TOKEN",)
    )
    # The launcher takes the time of each launch itself: the yard's clock begins now.
    return Place(Yard(engine, now=datetime.now(UTC)), hub, settings)


def test_workers_are_launched_for_queued_inference_and_no_more_while_they_start(place: Place):
    place.queue(2)
    control = place.control()
    assert place.step(control).launch == 2
    assert place.step(control).launch == 0
    assert [row.handle for row in place.rows()] == ["1", "2"]
    found = place.verdict()
    assert (found.verdict, found.starting, found.up) == ("2 launched workers are enough for what waits.", 2, 0)


def test_a_cluster_is_looked_at_once_in_its_pause_and_by_one_control_alone(place: Place):
    place.queue(1)
    first, second = place.control(), place.control()
    assert place.step(first).launch == 1
    assert place.step(first, 5) is None
    assert place.step(second) is None
    assert place.step(first).launch == 0
    # The first one is gone: after three minutes the other looks in its place, and finds what was launched.
    assert place.step(second, 181).launch == 0
    assert len(place.cluster.jobs) == 1


def test_a_crash_before_the_cluster_answers_launches_nothing_twice(place: Place):
    place.queue(1)
    place.cluster.crash = True
    with pytest.raises(Crash):
        place.step(place.control())
    (row,) = place.rows()
    assert row.handle is None
    place.cluster.crash = False
    assert place.step(place.control(), 181).launch == 0
    (row,) = place.rows()
    assert (row.handle, len(place.cluster.jobs)) == ("1", 1)


def test_a_launch_that_never_reached_the_cluster_is_given_up_after_a_minute(place: Place):
    place.queue(1)
    place.cluster.refuse = ClusterAway("sbatch did not answer within 20 s.")
    control = place.control()
    place.step(control)
    assert "sbatch did not answer" in place.verdict().verdict
    place.cluster.refuse = None
    assert place.step(control, 30).launch == 0, "it may be on its way"
    assert place.step(control, 31).launch == 0, "its death is young"
    assert place.rows()[0].sentence == "The cluster never got it."
    assert place.step(control, 60).launch == 1


def test_a_job_that_the_database_has_forgotten_is_found_by_its_mark(place: Place):
    place.queue(1)
    control = place.control()
    place.step(control)
    with db.session(place.yard.engine) as session:
        session.delete(session.exec(select(Row)).one())
    assert place.step(control).launch == 0
    (row,) = place.rows()
    assert (row.handle, row.worker) == ("1", f"lent-{row.id}")


def test_a_refusal_is_told_and_tried_again_after_a_pause(place: Place):
    place.queue(2)
    place.cluster.refuse = LaunchRefused("Slurm refused the worker's job: invalid account.")
    control = place.control()
    place.step(control)
    assert "invalid account" in place.verdict().verdict
    assert len(place.rows()) == 1, "the second would be refused, too"
    place.step(control)
    assert "failed to come up once: tried again in" in place.verdict().verdict
    assert place.verdict().failures == ("Slurm refused the worker's job: invalid account.",)
    place.cluster.refuse = None
    assert place.step(control, 60).launch == 1


def test_workers_that_die_before_they_are_heard_of_are_launched_ever_more_rarely(place: Place):
    place.queue(1)
    control = place.control()
    pauses = []
    for _ in range(3):
        place.step(control)
        handle = list(place.cluster.jobs)[-1]
        place.cluster.be(handle, JobState.ENDED, "Slurm says FAILED (NonZeroExitCode).")
        began = place.yard.now
        while not place.step(control).launch:
            pass
        pauses.append((place.yard.now - began) // (20 * SECOND))
        place.cluster.be(list(place.cluster.jobs)[-1], JobState.ENDED, "Slurm says FAILED (NonZeroExitCode).")
    assert pauses == sorted(pauses)
    assert pauses[-1] > 2 * pauses[0]


def test_a_worker_that_came_up_forgives_the_deaths_before_it(place: Place):
    place.queue(2)
    control = place.control()
    place.step(control)
    one, two = (row.worker for row in sorted(place.rows(), key=lambda row: row.handle))
    place.cluster.be("1", JobState.RUNNING)
    place.cluster.be("2", JobState.ENDED, "Slurm says FAILED.")
    place.yard.now += SECOND
    place.yard.beat(one)
    place.step(control)
    rows = {row.worker: row for row in place.rows()}
    assert rows[one].up_at is not None
    assert rows[two].is_death
    assert place.deaths().count == 0


def test_a_worker_that_did_its_work_and_ended_is_no_death(place: Place):
    place.queue(1)
    control = place.control()
    place.step(control)
    (row,) = place.rows()
    place.cluster.be("1", JobState.RUNNING)
    place.yard.beat(row.worker)
    place.step(control)
    place.cluster.be("1", JobState.ENDED)
    place.step(control)
    (row, *_) = place.rows()
    assert (row.ended_at is not None, row.is_death) == (True, False)
    assert place.verdict().failures == ()


def test_others_who_wait_end_what_was_launched_and_has_not_started(place: Place):
    place.queue(2)
    control = place.control()
    place.step(control)
    place.cluster.be("2", JobState.RUNNING)
    place.cluster.view = replace(place.cluster.view, others=Waiting(1, 1, place.yard.now))
    place.step(control)
    assert [job.state for job in place.cluster.jobs.values()] == [JobState.ENDED, JobState.RUNNING]
    assert place.verdict().verdict == "1 job of others waits for gpu: not launching."
    place.step(control)
    ended = [row for row in place.rows() if row.ended_at is not None]
    assert [(row.handle, row.is_death, row.sentence) for row in ended] == [
        ("1", False, "1 job of others waits for gpu.")
    ]


def test_a_cluster_that_cannot_be_asked_changes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch):
    place.queue(1)
    control = place.control()
    place.step(control)

    class Away(Played):
        def look(self, siblings: Collection[str] = ()) -> ClusterView:
            raise ClusterAway("squeue did not answer within 20 s.")

    control.system = Away()
    assert place.step(control, 3600) is None
    assert [row.ended_at for row in place.rows()] == [None]
    found = place.verdict()
    assert found.verdict == "The cluster cannot be asked, so nothing is launched. squeue did not answer within 20 s."
    assert (found.total, found.idle) == (8, 8), "what was last seen stays"


def test_an_operator_pauses_a_cluster_and_lets_it_launch_again_with_its_failures_forgiven(place: Place):
    place.queue(1)
    control = place.control()
    place.cluster.refuse = LaunchRefused("no.")
    place.step(control)
    place.cluster.refuse = None
    with db.session(place.yard.engine) as session:
        launches.pause(session, "lent", paused=True)
    place.step(control, 600)
    assert (place.verdict().verdict, place.verdict().paused) == ("An operator paused it: not launching.", True)
    with db.session(place.yard.engine) as session:
        launches.pause(session, "lent", paused=False)
    assert place.step(control).launch == 1
    with pytest.raises(NotFound, match=r"no cluster other. Known: lent\."), db.session(place.yard.engine) as session:
        launches.pause(session, "other", paused=True)


def test_a_cluster_that_nobody_looks_at_says_so(place: Place):
    place.step(place.control())
    place.yard.now += timedelta(minutes=10)
    assert place.verdict().verdict.startswith("Not looked at for 10 min: control is not running, or")


def test_a_clock_set_back_stops_no_cluster(place: Place):
    place.queue(1)
    place.step(place.control())
    other = place.control()
    place.yard.now -= timedelta(hours=5)
    assert place.step(other) is not None


def test_a_launched_worker_is_told_what_it_needs_and_no_secret_that_it_was_not_to_have(place: Place):
    place.queue(1)
    place.step(place.control())
    assert place.cluster.environment == {
        "EVALYARD_BROKER_URL": "redis://:hunter2@127.0.0.1:6379/0",
        "EVALYARD_ARTIFACTS_URL": place.hub.artifacts_url,
        "EVALYARD_ENGINE": "scripted",
        "EVALYARD_WORKER_UNTIL_IDLE_SECONDS": "300",
        "EVALYARD_WORKER_GPU_POLICY": "always",
        "EVALYARD_WORKER_SLOTS": "1",
        "TOKEN": "hf_secret",
    }
    (note,) = place.verdict().notes
    assert "which only this host reaches" in note
    assert "hunter2" not in note


def test_the_token_of_a_cluster_is_made_once(place: Place):
    tokens = set()
    for _ in range(2):
        place.step(place.control(), 181)
        tokens.add(place.token())
    assert len(tokens) == 1
