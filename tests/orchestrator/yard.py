"""A hub without processes: real database and real code, a clock that the test turns, orders that the test answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine
from sqlmodel import col, select

from orchestrator import db, jobs
from orchestrator.budgets import Budgets
from orchestrator.claims import Claim, claim, lock_workers
from orchestrator.dispatch import Dispatcher
from orchestrator.dossiers import open_dossiers
from orchestrator.heartbeats import apply_heartbeat
from orchestrator.lifecycle import JobState
from orchestrator.reaper import reap
from orchestrator.suites import Part, Suite, SuiteBenchmark
from orchestrator.tables import Attempt, Evaluation, Event, Job, Score, Submission
from orchestrator.updates import Verdict, apply_update
from orchestrator.wire import (
    EngineFamily,
    EngineInfo,
    FailureKind,
    Heartbeat,
    InferDone,
    Order,
    Precision,
    PrepareDone,
    Progress,
    ScoreDone,
    ScoreValue,
    Stage,
    Update,
)

LEASE = timedelta(seconds=60)
MODEL_PART = {"weights": "c0ffee", "dtype": "float32", "context_limit": 512}
ENGINE = EngineInfo(family=EngineFamily.SCRIPTED, version="1.0", device_type="cpu", device="test CPU")


def make_suite(*benchmarks: str, version: str = "1") -> Suite:
    return Suite(
        name="small",
        version=version,
        title="Small",
        harness="lm_eval 0.4.13",
        benchmarks=tuple(
            SuiteBenchmark(
                name=name, tasks=(name.lower(),), parts=(Part(task=name.lower(), metric="acc", baseline=0.25),)
            )
            for name in benchmarks
        ),
    )


@dataclass
class Yard:
    engine: Engine
    suites: Mapping[str, Suite] = field(default_factory=lambda: {"small": make_suite("ARC", "MMLU")})
    budgets: Budgets = field(default_factory=Budgets)
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    sent: list[tuple[str, Order]] = field(default_factory=list)
    keys: int = 0

    # What people do

    def submit(
        self,
        suite: str = "small",
        *,
        revision: str = "c0ffee",
        submitter: str = "local",
        facts: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> int:
        self.keys += 1
        with db.session(self.engine) as session:
            submission = Submission(
                model="org/m",
                revision=revision,
                precision=Precision.FLOAT32,
                submitter=submitter,
                submitted_at=self.now,
                facts=dict(facts or {}),
            )
            session.add(submission)
            session.flush()
            assert submission.id is not None
            evaluation = Evaluation(
                submission_id=submission.id,
                suite=suite,
                suite_version=self.suites[suite].version,
                engine=fields.pop("engine", EngineFamily.SCRIPTED),
                key=str(self.keys),
                created_at=self.now,
                **fields,
            )
            session.add(evaluation)
            session.flush()
            jobs.create_jobs(session, evaluation, [benchmark.name for benchmark in self.suites[suite].benchmarks])
            assert evaluation.id is not None
            return evaluation.id

    def cancel(self, evaluation: int) -> list[str]:
        with db.session(self.engine) as session:
            return jobs.cancel(session, evaluation, self.now)

    def retry(self, evaluation: int) -> int:
        with db.session(self.engine) as session:
            return jobs.retry(session, evaluation, self.now)

    # What workers do

    def beat(
        self,
        worker: str = "engine-1",
        *,
        running: Mapping[str, Progress] | None = None,
        boot: str = "first",
        slots: int = 1,
        at: datetime | None = None,
        **more: Any,
    ) -> list[str]:
        """A heartbeat; names that begin with `harness` are harness workers. Returns the attempts to stop."""
        kind = "harness" if worker.startswith("harness") else "engine"
        heartbeat = Heartbeat(
            worker=worker,
            boot=boot,
            kind=kind,  # type: ignore[arg-type]  # the literal of either kind
            at=at or self.now,
            slots=slots,
            engine=more.pop("engine", ENGINE) if kind == "engine" else None,
            running=dict(running or {}),
            **more,
        )
        with db.session(self.engine) as session:
            return apply_heartbeat(session, heartbeat, lease=LEASE, budgets=self.budgets, now=self.now)

    def report(self, attempt: str, event: str, **fields: Any) -> Verdict:
        update = Update.model_validate(
            {"attempt": attempt, "worker": self.worker_of(attempt), "at": self.now, "event": event, **fields}
        )
        with db.session(self.engine) as session:
            return apply_update(session, update, suites=self.suites, budgets=self.budgets, now=self.now)

    def complete(self, order: Order, **fields: Any) -> Verdict:
        return self.report(order.attempt, "completed", done=done_of(order, **fields))

    def fail(self, order: Order, kind: FailureKind, sentence: str = "It broke.", **fields: Any) -> Verdict:
        return self.report(order.attempt, "failed", failure=kind, sentence=sentence, **fields)

    # What the hub does

    def dispatcher(self, **fields: Any) -> Dispatcher:
        return Dispatcher(
            **{
                "engine": self.engine,
                "suites": self.suites,
                "send": self.sent.extend,
                **fields,
            }
        )

    def tick(self) -> list[Order]:
        """Dispatch once; returns the orders that were sent."""
        before = len(self.sent)
        self.dispatcher().dispatch(self.now)
        return [order for _, order in self.sent[before:]]

    def claim(self, wanted: Claim, *, identity: dict[str, object] | None = None) -> bool:
        """One claim by itself, in a transaction of its own."""
        with db.session(self.engine) as session:
            workers = lock_workers(session, [wanted.worker], now=self.now)
            row = session.exec(select(Job.evaluation_id).where(Job.id == wanted.job)).one()
            dossier = open_dossiers(session, [row])[row]
            return claim(
                session, wanted, workers=workers, dossier=dossier, identity=identity, lease=LEASE, now=self.now
            )

    def reap(self) -> int:
        return reap(self.engine, self.now, budgets=self.budgets)

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # Shortcuts

    def workers(self) -> None:
        """One engine worker and one roomy harness worker, alive and idle."""
        self.beat("engine-1")
        self.beat("harness-1", slots=4)

    def prepare_all(self) -> None:
        """Give out and complete every prepare job."""
        self.workers()
        for order in self.tick():
            assert order.work.stage is Stage.PREPARE
            self.complete(order)

    def infer_order(self) -> Order:
        """Bring a fresh evaluation to its infer order."""
        self.prepare_all()
        (order,) = self.tick()
        assert order.work.stage is Stage.INFER
        return order

    def finish(self) -> None:
        """Complete every order until nothing more is sent."""
        while orders := self.tick():
            for order in orders:
                self.complete(order)

    # What the database says

    def worker_of(self, attempt: str) -> str:
        """Whom the attempt was given to; some worker for one that there is not."""
        with db.session(self.engine, read_only=True) as session:
            return session.exec(select(Attempt.worker).where(Attempt.id == attempt)).first() or "engine-1"

    def job(self, evaluation: int, stage: Stage, benchmark: str = "") -> Job:
        statement = select(Job).where(Job.evaluation_id == evaluation, Job.stage == stage, Job.benchmark == benchmark)
        with db.session(self.engine, read_only=True) as session:
            return session.exec(statement).one()

    def states(self, evaluation: int) -> dict[str, str]:
        """State of each job, by `stage` or `stage benchmark`."""
        statement = select(Job).where(Job.evaluation_id == evaluation).order_by(col(Job.id))
        with db.session(self.engine, read_only=True) as session:
            rows = session.exec(statement).all()
        return {f"{row.stage.value} {row.benchmark}".strip(): row.state.value for row in rows}

    def evaluation(self, evaluation: int) -> Evaluation:
        with db.session(self.engine, read_only=True) as session:
            return session.exec(select(Evaluation).where(Evaluation.id == evaluation)).one()

    def attempts(self, job: Job) -> list[Attempt]:
        statement = select(Attempt).where(Attempt.job_id == job.id).order_by(col(Attempt.dispatched_at))
        with db.session(self.engine, read_only=True) as session:
            return list(session.exec(statement).all())

    def events(self, evaluation: int) -> list[Event]:
        statement = select(Event).where(Event.evaluation_id == evaluation).order_by(col(Event.id))
        with db.session(self.engine, read_only=True) as session:
            return list(session.exec(statement).all())

    def scores(self, evaluation: int) -> list[Score]:
        statement = select(Score).where(Score.evaluation_id == evaluation).order_by(col(Score.id))
        with db.session(self.engine, read_only=True) as session:
            return list(session.exec(statement).all())

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of every table that a worker's message may change."""
        with db.session(self.engine, read_only=True) as session:
            return {
                table.__name__: [row.model_dump() for row in session.exec(select(table)).all()]
                for table in (Evaluation, Job, Attempt, Score, Event)
            }

    def held(self) -> int:
        with db.session(self.engine, read_only=True) as session:
            held = col(Job.state).in_([JobState.DISPATCHED, JobState.RUNNING])
            return len(session.exec(select(Job).where(held)).all())


def done_of(order: Order, *, accuracy: float = 0.5, **fields: Any) -> dict[str, Any]:
    """What an undisturbed worker would report for this order."""
    done: PrepareDone | InferDone | ScoreDone
    match order.work.stage:
        case Stage.PREPARE:
            done = PrepareDone(
                sheet=order.output,
                digest="d1",
                requests=8,
                documents=2,
                truncated=0,
                identity=MODEL_PART,
                provenance={"lm_eval": "0.4.13"},
            )
        case Stage.INFER:
            done = InferDone(
                computed=16,
                reused=0,
                seconds=2.0,
                total_seconds=3.0,
                tokens_computed=100,
                tokens_reused=0,
                engine=ENGINE,
            )
        case Stage.SCORE:
            done = ScoreDone(
                results=order.output,
                scores=(
                    ScoreValue(
                        task=order.work.benchmark.name.lower(),
                        metric="acc",
                        filter="none",
                        value=accuracy,
                        stderr=0.1,
                        samples=2,
                        higher_is_better=True,
                    ),
                ),
                provenance={"segments_digest": "s1"},
            )
    return done.model_copy(update=fields).model_dump(mode="json")
