"""Workers as they describe themselves, how their attempts went, and how fast they are."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Text, text
from sqlmodel import Field, SQLModel

from orchestrator.tables.columns import enum_column, time_column
from orchestrator.wire import EngineFamily, Mode


class Worker(SQLModel, table=True):
    """A worker as its last heartbeat described it."""

    name: str = Field(primary_key=True)
    kind: str
    boot: str
    slots: int = 1
    stopping: bool = False
    engine_family: EngineFamily | None = enum_column(EngineFamily, default=None, nullable=True)
    engine_version: str | None = None
    device_type: str | None = None
    device: str | None = None
    device_count: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    """Devices that the host has; `slots` are those that it may use now."""
    memory_bytes: int | None = Field(default=None, sa_type=BigInteger)
    """Of its smallest GPU, or of the host where it computes on a CPU."""
    until: datetime | None = time_column(nullable=True)
    """When it must have given back its devices, by the hub's clock."""
    last_heartbeat: datetime = time_column()
    """By the hub's clock."""
    reported_at: datetime = time_column()
    """By the worker's clock: orders its messages."""
    first_seen: datetime = time_column()
    weights: list[str] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    """Commits whose downloaded weights lie on its host, those used last first."""
    warm: list[str] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    """Commits of models whose engines are up, idle ones first."""
    mode: Mode = enum_column(Mode, default=Mode.OPEN, sa_column_kwargs={"server_default": "open"})
    """What operators want of it; `orchestrator.modes` alone writes it."""
    mode_by: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
    """Name of the operator who drained or paused it; empty where the site has no accounts."""
    mode_since: datetime | None = time_column(nullable=True)
    """When they did; None of one that is open."""
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default="", server_default=text("''")))
    """Why it takes no work now, as it said itself."""
    gpus: list[dict[str, Any]] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    """`wire.Gpu` records: what its policy says of each GPU."""
    host: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
    """Of a launched worker: its cluster and host, as `CLUSTER/HOST`. Its own name is new at each launch. Of one whose
    operator named its host: `HOST (KIND)`. Else empty."""
    harnesses: list[str] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    """Harness environments on its host, e.g. `lm_eval 0.4.13`; empty or None where it did not say."""
    build: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
    """Digest of all that may change its answers (`orchestrator.canaries.builds`); empty where nothing computes."""
    build_facts: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    """What the digest is of."""
    address: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
    """What envelopes for its present process are sealed with (`orchestrator.envelopes`)."""


class EngineVersion(SQLModel, table=True):
    """What a version of an engine knows, as workers that have it read it there; `orchestrator.heartbeats` writes it."""

    engine: EngineFamily = enum_column(EngineFamily, primary_key=True)
    version: str = Field(primary_key=True)
    architectures: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """Names of generating models, as a config's `architectures` has them."""
    dropped: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    """Names that it knew once, with the last version that did."""
    quantisations: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """Ways of quantising that it loads, as a config's `quant_method` has them; empty where it did not say."""
    told_at: datetime = time_column()


class Health(SQLModel, table=True):
    """How a worker's latest attempts went, and whether it is held back for it; `orchestrator.breaker` alone writes it.

    A table of its own, because heartbeats lock the worker's row before any evaluation, and this is written after one.
    """

    worker: str = Field(primary_key=True)
    """Name of the worker, or its `host` where it has one, for all that run there."""
    kind: str
    succeeded_at: datetime | None = time_column(nullable=True)
    failures: list[dict[str, Any]] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """Since the last success: attempt, evaluation, job, stage, boot, failure, sentence, at."""
    held_back_until: datetime | None = time_column(nullable=True)
    times_held_back: int = 0
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
    """Why it is held back, for operators."""


class Speed(SQLModel, table=True):
    """How fast finished inference was: sums over its attempts, one row for each kind of device, suite and size."""

    engine: EngineFamily = enum_column(EngineFamily, primary_key=True)
    device: str = Field(primary_key=True)
    """Name of the device, with how many of them one engine used."""
    suite: str = Field(primary_key=True)
    size_class: int = Field(primary_key=True)
    """Active parameters of the model: the power of two below them."""
    runs: int = 0
    requests: int = Field(default=0, sa_type=BigInteger)
    tokens: int = Field(default=0, sa_type=BigInteger)
    engine_seconds: float = 0.0
    """From the first request fed to the last answered."""
    start_seconds: float = 0.0
    """Everything else of the attempts: loading weights, warming up, reading sheets."""
