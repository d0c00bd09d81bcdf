"""Suite versions, which of them the board shows, and plans to evaluate again under another one.

`orchestrator.reruns` alone writes these, but for `SuiteVersion`, which is recorded when hub processes start.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Text
from sqlmodel import Field, SQLModel

from orchestrator.lifecycle import RerunState
from orchestrator.tables.columns import enum_column, json_column, time_column


class SuiteVersion(SQLModel, table=True):
    """A suite as it stood under one version number. Written once: what moves a score never changes afterwards."""

    suite: str = Field(primary_key=True)
    version: str = Field(primary_key=True)
    digest: str
    """Of everything in the record that moves a score."""
    record: dict[str, Any] = json_column()
    """The whole `orchestrator.suites.Suite`."""
    added_at: datetime = time_column()


class ShownVersion(SQLModel, table=True):
    """From when on the board shows which version of a suite. Rows are only added: the newest counts."""

    __table_args__ = (Index("shown_version_newest", "suite", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    suite: str
    version: str
    since: datetime = time_column()
    by: str = ""
    """Who switched: a person's name, or `coverage` where a plan's goal was reached."""
    rerun_id: int | None = None


class Rerun(SQLModel, table=True):
    """A plan to make the finished evaluations of one suite version again under another, and how far it is."""

    id: int | None = Field(default=None, primary_key=True)
    suite: str = Field(index=True)
    from_version: str
    to_version: str
    state: RerunState = enum_column(RerunState, default=RerunState.PLANNING, index=True)
    coverage_goal: float | None = None
    """Share, 0 to 1, of the evaluations at which the board switches by itself; None leaves it to an operator."""
    first: str = "rank"
    """Whose turn is first: `rank`, `votes`, `age` or `size`."""
    budget_seconds: int | None = Field(default=None, sa_type=BigInteger)
    """Device time after which no further inference of the plan begins."""
    spent_seconds: float = 0.0
    """Device time that its inference has held, as last looked."""
    only: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """Benchmarks to do; None for all."""
    priority: int = 0
    made_at: datetime = time_column()
    made_by: str = ""
    ready_at: datetime | None = time_column(nullable=True)
    started_at: datetime | None = time_column(nullable=True)
    asked_at: datetime | None = time_column(nullable=True)
    """When an operator last let it go on: a sheet that could not be made before that is asked for again."""
    ended_at: datetime | None = time_column(nullable=True)
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
    """Why it waits, was paused or cannot be planned, for people."""
    estimate: dict[str, Any] = json_column()
    """`orchestrator.reruns.costs.Estimate`, once it is planned."""


class RerunBenchmark(SQLModel, table=True):
    """One comparison of a plan: a benchmark's sheets of one class of models, made by the old and the new harness."""

    rerun_id: int = Field(primary_key=True, foreign_key="rerun.id")
    sheet_class: str = Field(primary_key=True)
    """`wire.PrepareDone.sheet_class` of the old sheets; `evaluation-ID` where an old worker did not say one."""
    benchmark: str = Field(primary_key=True)
    evaluation_id: int = Field(foreign_key="evaluation.id")
    """An old evaluation of the class: its model stands for the others."""
    evaluations: int = 0
    """How many finished evaluations are of the class."""
    verdict: str = ""
    """`same`, `score`, `infer`, `incomparable` or `unknown`; empty until it is compared."""
    requests: int = 0
    """Of the new sheet."""
    new_requests: int = 0
    """Requests of the new sheet that the old one has not."""
    new_tokens: int = Field(default=0, sa_type=BigInteger)
    """Tokens of the new requests, what they may generate included."""
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
    """What differs, for people."""
    facts: dict[str, Any] = json_column()
    """Artifact keys of both sheets, and further findings."""
