"""A whole Evalyard of real processes on a database of either kind, whose parts a test may kill and start again."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlmodel import col, select

from orchestrator import broker, db, jobs, notes
from orchestrator.artifacts import ArtifactStore
from orchestrator.lifecycle import JobState
from orchestrator.settings import HubSettings
from orchestrator.suites import load_suites
from orchestrator.tables import Attempt, Evaluation, Job, Score, Worker
from orchestrator.wire import Stage, identity_digest
from submissions.intake import submit
from submissions.request import SubmissionRequest
from tests.services import Valkey, processes_with, wait_until
from workers import segments

LEASE_SECONDS = 12.0
TICK_SECONDS = 0.2
SEAL_SECONDS = 0.4
DELAY_SECONDS = 0.1
"""What the scripted engine takes for a request."""

SUITE = """
name = "flow"
version = "1"
title = "Flow"
description = "Two of the demo's tasks."
harness = "lm_eval 0.4.13"

[[benchmarks]]
name = "Letters"
description = "Letter choice."
tasks = ["demo_letters"]
parts = [{ task = "demo_letters", metric = "acc", baseline = 0.25 }]

[[benchmarks]]
name = "Sums"
description = "Generated text."
tasks = ["demo_sums"]
parts = [{ task = "demo_sums", metric = "exact_match" }]
"""

SHARING = """
name = "sharing"
version = "1"
title = "Sharing"
description = "Shares a benchmark with the other suite."
harness = "lm_eval 0.4.13"

[[benchmarks]]
name = "Choice"
description = "The other suite's letter choice, under another name."
tasks = ["demo_letters"]
parts = [{ task = "demo_letters", metric = "acc", baseline = 0.25 }]

[[benchmarks]]
name = "Stories"
description = "Continuation."
tasks = ["demo_stories"]
parts = [{ task = "demo_stories", metric = "acc", baseline = 0.25 }]
"""

SHORT = """
name = "short"
version = "1"
title = "Short"
description = "One of the demo's tasks."
harness = "lm_eval 0.4.13"

[[benchmarks]]
name = "Letters"
description = "Letter choice."
tasks = ["demo_letters"]
parts = [{ task = "demo_letters", metric = "acc", baseline = 0.25 }]
"""

SUITES = {"flow": SUITE, "sharing": SHARING, "short": SHORT}


def program(name: str) -> list[str]:
    """Arguments of Python for a part of a fleet: `control`, `harness` and `engine`, or `engine-2` and so on."""
    part, _, number = name.partition("-")
    if part == "control":
        return ["-m", "orchestrator.control"]
    slots = ["--slots", "2"] if part == "harness" else []
    return ["-m", "workers.app", part, "--name", f"{part}-{number or 1}", *slots]


@dataclass
class Fleet:
    folder: Path
    database_url: str
    broker: Valkey
    lease_seconds: float = LEASE_SECONDS
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    worker_settings: dict[str, str] = field(default_factory=dict)
    """Further settings of all workers, by the end of the variable's name: `GPUS`."""
    hub_settings: dict[str, str] = field(default_factory=dict)
    """Further settings of control, likewise: `PUBLIC_URL`."""
    engine_settings: dict[str, Any] = field(default_factory=lambda: {"delay_seconds": DELAY_SECONDS, "batch": 4})

    def __post_init__(self) -> None:
        suites = self.folder / "suites"
        suites.mkdir(parents=True)
        for name, text in SUITES.items():
            (suites / f"{name}.toml").write_text(text)
        self.settings = HubSettings(
            data=self.folder,
            database_url=self.database_url,
            broker_url=self.broker.url,
            engine="scripted",
            suites=suites,
            lease_seconds=self.lease_seconds,
            tick_seconds=TICK_SECONDS,
        )
        self.suites = load_suites(suites)
        self.engine: Engine = db.make_engine(self.settings.database_url)
        db.migrate(self.engine)
        self.store = ArtifactStore(self.settings.artifacts_url)

    # Processes

    def start(self, *names: str) -> None:
        hub = {
            "EVALYARD_DATA": str(self.folder),
            "EVALYARD_DATABASE_URL": self.database_url,
            "EVALYARD_SUITES": str(self.folder / "suites"),
            "EVALYARD_LEASE_SECONDS": str(self.lease_seconds),
            "EVALYARD_TICK_SECONDS": str(TICK_SECONDS),
        } | {f"EVALYARD_{name}": value for name, value in self.hub_settings.items()}
        worker = {
            "EVALYARD_WORKER_SCRATCH": str(self.folder / "scratch"),
            "EVALYARD_WORKER_WEIGHTS": str(self.folder / "weights"),
            "EVALYARD_WORKER_HEARTBEAT_SECONDS": "1",
            "EVALYARD_WORKER_SEAL_SECONDS": str(SEAL_SECONDS),
            "EVALYARD_WORKER_ENGINE_SETTINGS": json.dumps(self.engine_settings),
        } | {f"EVALYARD_WORKER_{name}": value for name, value in self.worker_settings.items()}
        common = {
            "EVALYARD_BROKER_URL": self.broker.url,
            "EVALYARD_ARTIFACTS_URL": self.settings.artifacts_url,
            "EVALYARD_ENGINE": "scripted",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EVALYARD_")}
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, *program(name)],
                    env=environment | common | (hub if name.startswith("control") else worker),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to one process alone, not to its children, and wait for its end."""
        self.processes[name].send_signal(number)
        self.processes[name].wait(60)

    def kill_stage(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the engine child."""
        (pid,) = self.stages()
        os.kill(pid, number)

    def stages(self) -> dict[int, str]:
        """Stage programs of the engine that run now."""
        found = processes_with(str(self.folder / "scratch" / "engine-1"))
        return {pid: command for pid, command in found.items() if "workers.engine.infer" in command}

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(60)
        self.engine.dispose()

    def log(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(self.folder.glob("*.log"))
        )

    # What is true

    def submit(self, model: Path | str, *, limit: int | None = None, suite: str = "flow") -> int:
        request = SubmissionRequest(model=str(model), precision="float32", suite=suite, limit=limit)
        with db.session(self.engine) as session:
            evaluation = submit(session, self.settings, suites=self.suites, request=request).evaluation
            assert evaluation.id is not None
            return evaluation.id

    def cancel(self, evaluation: int) -> None:
        with db.session(self.engine) as session:
            stopped = jobs.cancel(session, evaluation, datetime.now(UTC))
        app = broker.make_app(self.broker.url, name="test")
        for attempt in stopped:
            notes.request_stop(app, attempt, "Cancelled on request.")

    def rows(self, statement: Any) -> list[Any]:
        with db.session(self.engine, read_only=True) as session:
            return list(session.exec(statement).all())

    def evaluation(self, evaluation: int) -> Evaluation:
        return self.rows(select(Evaluation).where(Evaluation.id == evaluation))[0]

    def infer_job(self, evaluation: int) -> Job:
        return self.rows(select(Job).where(Job.evaluation_id == evaluation, Job.stage == Stage.INFER))[0]

    def infer_outcomes(self, evaluation: int) -> list[str]:
        """How the attempts at inference ended, in order; empty for the one that goes on."""
        statement = select(Attempt).where(Attempt.job_id == self.infer_job(evaluation).id)
        return [attempt.outcome for attempt in self.rows(statement.order_by(col(Attempt.dispatched_at)))]

    def workers(self) -> set[str]:
        return set(self.rows(select(Worker.name)))

    def scores(self, evaluation: int) -> dict[tuple[str, str, str, str], float]:
        rows = self.rows(select(Score).where(Score.evaluation_id == evaluation))
        found = {(row.benchmark, row.task, row.metric, row.filter): row.value for row in rows}
        assert len(found) == len(rows)
        return found

    def computed(self, evaluation: int) -> Counter[str]:
        """How often each request was answered in the segments of this evaluation's model."""
        identity = self.infer_job(evaluation).identity
        if not identity:
            return Counter()
        keys = self.store.list(f"responses/{identity_digest(identity)}")
        return Counter(
            response.id for key in keys for response in segments.read(self.store.fetch_file(key, self.folder))[1]
        )

    # Waiting

    def wait_for(self, evaluation: int, *, seconds: float = 180.0) -> Evaluation:
        """The evaluation once it has ended."""
        try:
            wait_until(lambda: self.evaluation(evaluation).state.is_final, "the evaluation has ended", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        return self.evaluation(evaluation)

    def wait_for_sheet(self, evaluation: int, benchmark: str) -> Path:
        """The sheet folder of a benchmark, once it is prepared."""
        prepared = select(Job).where(
            Job.evaluation_id == evaluation,
            Job.stage == Stage.PREPARE,
            Job.benchmark == benchmark,
            Job.state == JobState.COMPLETED,
        )
        wait_until(lambda: self.rows(prepared), f"{benchmark} is prepared", seconds=120)
        return self.store.fetch_folder(self.rows(prepared)[0].result["sheet"], self.folder)

    def wait_for_middle(self, evaluation: int, *, more_than: int = 0) -> int:
        """Until more responses are sealed than given and inference goes on; returns how many are sealed."""
        try:
            wait_until(
                lambda: len(self.computed(evaluation)) > more_than and self.stages(), "inference has begun", seconds=120
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        assert self.infer_job(evaluation).state in (JobState.DISPATCHED, JobState.RUNNING)
        return len(self.computed(evaluation))
