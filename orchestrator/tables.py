"""The tables: what is true. Times are UTC; JSON columns hold records of `orchestrator.wire` or plain facts.

`orchestrator.arrows` alone writes `Job.state` and `Attempt`; `orchestrator.results` alone writes `Score`.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, DateTime, Enum, Index, Text, TypeDecorator, UniqueConstraint, text
from sqlalchemy.engine import Dialect
from sqlmodel import Field, SQLModel

from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.wire import EngineFamily, FailureKind, Mode, Precision, Stage


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, always aware and in UTC; SQLite keeps no zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _time(*, nullable: bool = False) -> Any:
    return Field(default=None, sa_type=UtcDateTime, nullable=nullable)


def _enum(kind: type[StrEnum], **field: Any) -> Any:
    """Stored as its value in a plain text column: a later version may add values without changing the schema."""
    values = Enum(kind, native_enum=False, length=32, values_callable=lambda members: [str(m.value) for m in members])
    return Field(sa_type=values, **field)


def _json() -> Any:
    return Field(default_factory=dict, sa_column=Column(JSON, nullable=False))


class Submission(SQLModel, table=True):
    """What a person asked for."""

    id: int | None = Field(default=None, primary_key=True)
    model: str = Field(index=True)
    revision: str
    folder: str | None = None
    """Absolute path, for a model of a local folder or mirror."""
    precision: Precision = _enum(Precision)
    weight_type: str = "original"
    base_model: str | None = None
    base_revision: str | None = None
    base_folder: str | None = None
    model_type: str = "unknown"
    chat_template: bool = False
    architecture: str | None = None
    parameters: int | None = Field(default=None, sa_type=BigInteger)
    """Number of weights, from the safetensors headers."""
    licence: str | None = None
    submitter: str = "local"
    submitted_at: datetime = _time()
    facts: dict[str, Any] = _json()
    """Whatever else was read from the repository at submission."""


class Evaluation(SQLModel, table=True):
    """A submission under a suite version, answered by one engine family."""

    __table_args__ = (UniqueConstraint("key", name="evaluation_key"),)

    id: int | None = Field(default=None, primary_key=True)
    submission_id: int = Field(foreign_key="submission.id", index=True)
    suite: str = Field(index=True)
    suite_version: str
    engine: EngineFamily = _enum(EngineFamily)
    document_limit: int | None = None
    """Documents per lm-eval task; an evaluation with a limit is never ranked."""
    key: str
    """Digest of everything that makes two evaluations the same: see `submissions.intake.evaluation_key`."""
    state: EvaluationState = _enum(EvaluationState, default=EvaluationState.QUEUED, index=True)
    failure: FailureKind | None = _enum(FailureKind, default=None, nullable=True)
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
    """Why it failed or lacks a benchmark, for people."""
    average: float | None = None
    """The suite's average, 0 to 100; None unless every benchmark has its score."""
    created_at: datetime = _time()
    started_at: datetime | None = _time(nullable=True)
    ended_at: datetime | None = _time(nullable=True)


class Job(SQLModel, table=True):
    """One stage of an evaluation."""

    __table_args__ = (
        UniqueConstraint("evaluation_id", "stage", "benchmark", "slice_index", name="job_once"),
        Index("job_waiting", "state", "stage"),
        Index("job_turn", "state", "stage", "turn_at"),
    )

    id: int | None = Field(default=None, primary_key=True)
    evaluation_id: int = Field(foreign_key="evaluation.id", index=True)
    stage: Stage = _enum(Stage)
    benchmark: str = ""
    """Name of the benchmark; empty for infer, which answers all of them in one engine start."""
    slice_index: int = 0
    slice_count: int = 1
    state: JobState = _enum(JobState, default=JobState.BLOCKED)
    priority: int = 0
    attempt_id: str | None = None
    """The current attempt: the fence."""
    not_before: datetime | None = _time(nullable=True)
    """Back-off: not dispatched earlier."""
    turn_at: datetime | None = _time(nullable=True)
    """Its place in the queue: when its evaluation was made, or later where its submitter had others unfinished."""
    refused_by: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """Workers whose host lacks what it needs, by name: their boot, the class of the failure and its sentence."""
    benchmarks_done: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """Of infer: benchmarks that its current or last attempt has answered, as far as its slice goes."""
    model_failures: int = 0
    infrastructure_failures: int = 0
    failure: FailureKind | None = _enum(FailureKind, default=None, nullable=True)
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
    log_tail: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
    requests_done: int = 0
    requests_total: int = 0
    longest: int | None = None
    """Of infer: tokens of its longest request."""
    phase: str = ""
    result: dict[str, Any] = _json()
    """The Done record of the completed attempt."""
    identity: dict[str, Any] = _json()
    """Full model identity whose responses this job makes (infer, since its last dispatch) or reads (score)."""
    created_at: datetime = _time()
    ended_at: datetime | None = _time(nullable=True)


class Attempt(SQLModel, table=True):
    """One dispatch of a job. Rows are never deleted: they are the job's history."""

    __table_args__ = (
        Index(
            "attempt_current",
            "job_id",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index("attempt_lease", "lease_until"),
    )

    id: str = Field(primary_key=True)
    job_id: int = Field(foreign_key="job.id", index=True)
    worker: str
    boot: str
    """The worker's boot when the attempt was dispatched."""
    devices: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    """How many of the worker's slots it holds."""
    dispatched_at: datetime = _time()
    started_at: datetime | None = _time(nullable=True)
    lease_until: datetime = _time()
    ended_at: datetime | None = _time(nullable=True)
    outcome: str = ""
    """`completed`, `failed`, `released`, `preempted`, `expired`, `unsent`, `cancelled`; empty while it runs."""
    restarts: list[str] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    """Why its engine was started again, a sentence each."""
    spent: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    """`wire.Spent` as last told: engine time and tokens, of engines that died as well."""
    failure: FailureKind | None = _enum(FailureKind, default=None, nullable=True)
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
    log_tail: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))


class Worker(SQLModel, table=True):
    """A worker as its last heartbeat described it."""

    name: str = Field(primary_key=True)
    kind: str
    boot: str
    slots: int = 1
    stopping: bool = False
    engine_family: EngineFamily | None = _enum(EngineFamily, default=None, nullable=True)
    engine_version: str | None = None
    device_type: str | None = None
    device: str | None = None
    device_count: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    """Devices that the host has; `slots` are those that it may use now."""
    memory_bytes: int | None = Field(default=None, sa_type=BigInteger)
    """Of its smallest GPU, or of the host where it computes on a CPU."""
    until: datetime | None = _time(nullable=True)
    """When it must have given back its devices, by the hub's clock."""
    last_heartbeat: datetime = _time()
    """By the hub's clock."""
    reported_at: datetime = _time()
    """By the worker's clock: orders its messages."""
    first_seen: datetime = _time()
    weights: list[str] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    """Commits whose downloaded weights lie on its host, those used last first."""
    warm: list[str] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    """Commits of models whose engines are up, idle ones first."""
    mode: Mode = _enum(Mode, default=Mode.OPEN, sa_column_kwargs={"server_default": "open"})
    """What operators want of it; `orchestrator.modes` alone writes it."""
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default="", server_default=text("''")))
    """Why it takes no work now, as it said itself."""
    gpus: list[dict[str, Any]] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    """`wire.Gpu` records: what its policy says of each GPU."""


class Health(SQLModel, table=True):
    """How a worker's latest attempts went, and whether it is held back for it; `orchestrator.breaker` alone writes it.

    A table of its own, because heartbeats lock the worker's row before any evaluation, and this is written after one.
    """

    worker: str = Field(primary_key=True)
    kind: str
    succeeded_at: datetime | None = _time(nullable=True)
    failures: list[dict[str, Any]] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """Since the last success: attempt, evaluation, job, stage, boot, failure, sentence, at."""
    held_back_until: datetime | None = _time(nullable=True)
    times_held_back: int = 0
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
    """Why it is held back, for operators."""


class Speed(SQLModel, table=True):
    """How fast finished inference was: sums over its attempts, one row for each kind of device, suite and size."""

    engine: EngineFamily = _enum(EngineFamily, primary_key=True)
    device: str = Field(primary_key=True)
    """Name of the device, with how many of them one engine used."""
    suite: str = Field(primary_key=True)
    size_class: int = Field(primary_key=True)
    """Active parameters of the model: the power of two below them."""
    runs: int = 0
    requests: int = 0
    tokens: int = Field(default=0, sa_type=BigInteger)
    engine_seconds: float = 0.0
    """From the first request fed to the last answered."""
    start_seconds: float = 0.0
    """Everything else of the attempts: loading weights, warming up, reading sheets."""


class Cluster(SQLModel, table=True):
    """A cluster that workers are launched on, as the last look found it; `orchestrator.clusters` alone writes it."""

    name: str = Field(primary_key=True)
    kind: str
    token: str
    """Made once: jobs in the cluster carry it, and so are known as this hub's after any crash."""
    paused: bool = False
    """An operator wants nothing launched."""
    held_by: str = ""
    held_until: datetime | None = _time(nullable=True)
    """Until then one control process looks, decides and launches, and no other."""
    looked_at: datetime | None = _time(nullable=True)
    verdict: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
    """Why it launches or not, as a sentence."""
    facts: dict[str, Any] = _json()
    """What the last look saw: GPUs, jobs of others, notes."""


class Launch(SQLModel, table=True):
    """A worker that the hub started on a cluster. Written before the cluster is asked, so that none is forgotten."""

    id: str = Field(primary_key=True)
    """Ten hexadecimal digits: the mark that its job carries."""
    cluster: str = Field(index=True)
    worker: str
    """Name that the worker takes."""
    handle: str | None = None
    """The cluster's name of its job; None until the cluster said it."""
    state: str = "pending"
    """`pending`, `running`, `ended`: the job's, as last seen."""
    asked_at: datetime = _time()
    running_since: datetime | None = _time(nullable=True)
    up_at: datetime | None = _time(nullable=True)
    """When its worker was first seen to be heard of."""
    ending_at: datetime | None = _time(nullable=True)
    """When the cluster was asked to end it."""
    ended_at: datetime | None = _time(nullable=True)
    is_death: bool = False
    """It ended before its worker was heard of, and nobody wanted that."""
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))


class Score(SQLModel, table=True):
    """One number with its provenance. Written once, never changed; the cost of answering is added when it is known."""

    __table_args__ = (UniqueConstraint("evaluation_id", "benchmark", "task", "metric", "filter", name="score_once"),)

    id: int | None = Field(default=None, primary_key=True)
    evaluation_id: int = Field(foreign_key="evaluation.id", index=True)
    benchmark: str
    task: str
    """lm-eval's task or group; empty for the benchmark's own value (the board's cell)."""
    metric: str
    """lm-eval's metric; on the benchmark's own rows `value` (normalised as the suite says) or `raw`, both 0 to 100."""
    filter: str = ""
    value: float
    stderr: float | None = None
    samples: int = 0
    job_id: int = Field(foreign_key="job.id")
    attempt_id: str
    provenance: dict[str, Any] = _json()
    """On the benchmark's own `value` row; its other rows share it."""
    created_at: datetime = _time()


class Event(SQLModel, table=True):
    """What happened to an evaluation, in order; written in the transaction that made it happen."""

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = _time()
    evaluation_id: int | None = Field(default=None, foreign_key="evaluation.id", index=True)
    job_id: int | None = Field(default=None, foreign_key="job.id")
    attempt_id: str | None = None
    name: str
    """A constant of `orchestrator.arrows`, `evaluations` or `jobs`, e.g. `job_requeued`."""
    details: dict[str, Any] = _json()
