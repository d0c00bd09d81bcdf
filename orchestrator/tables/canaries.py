"""Canaries, and what became of them on each build of the engines; `orchestrator.canaries` alone writes these."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Index, Text, text
from sqlmodel import Field, SQLModel

from orchestrator.lifecycle import CanaryRunState, CanaryState
from orchestrator.tables.columns import enum_column, json_column, time_column
from orchestrator.wire import EngineFamily


class Canary(SQLModel, table=True):
    """A finished evaluation whose model is pinned, with a fixed sample of its requests and their stored answers."""

    id: int | None = Field(default=None, primary_key=True)
    evaluation_id: int = Field(foreign_key="evaluation.id", index=True)
    engine: EngineFamily = enum_column(EngineFamily)
    device_type: str
    """With the engine family: for which workers it sings. Of each pair at most one is not ended."""
    identity: dict[str, Any] = json_column()
    """Full model identity whose stored responses are the reference."""
    asked: int = 300
    """How many requests the operator wanted in the sample, about."""
    state: CanaryState = enum_column(CanaryState, default=CanaryState.SAMPLING, index=True)
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
    """Why no sample could be taken."""
    sample: str = ""
    """Artifact prefix of the sample's sheets and reference."""
    sheets: dict[str, Any] = json_column()
    """Kind of requests to the artifact key of their sheet, as an order has them."""
    requests: int = 0
    longest: int = 0
    """Tokens of the longest request."""
    reference: dict[str, Any] = json_column()
    """What computed the stored answers: `engines`, as segments say; how many of each kind there are."""
    set_at: datetime = time_column()
    set_by: str = ""
    ended_at: datetime | None = time_column(nullable=True)
    ended_by: str = ""


class CanaryRun(SQLModel, table=True):
    """A canary on one build of an engine: waiting for its answers, or what they showed. Rows are never deleted.

    The last one of a build that has ended says whether its workers may work.
    """

    __table_args__ = (
        Index(
            "canary_run_waiting",
            "canary_id",
            "build",
            unique=True,
            sqlite_where=text("state = 'waiting'"),
            postgresql_where=text("state = 'waiting'"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    canary_id: int = Field(foreign_key="canary.id", index=True)
    build: str
    """`orchestrator.canaries.builds.Build.digest`."""
    facts: dict[str, Any] = json_column()
    """The build itself."""
    job_id: int | None = Field(default=None, foreign_key="job.id", index=True)
    """What computes its answers; None of an operator's word."""
    state: CanaryRunState = enum_column(CanaryRunState, default=CanaryRunState.WAITING)
    made_at: datetime = time_column()
    made_by: str = ""
    """The operator who asked for it; empty where the build was new."""
    ended_at: datetime | None = time_column(nullable=True)
    drift: dict[str, Any] = json_column()
    """`orchestrator.canaries.drift.Drift`, once compared."""
    bounds: dict[str, Any] = json_column()
    """`orchestrator.canaries.drift.Bounds` that it was held against."""
    worker: str = ""
    """Who answered last."""
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
