"""Clusters that workers are launched on, and the launches; `orchestrator.clusters` alone writes them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Text, text
from sqlmodel import Field, SQLModel

from orchestrator.tables.columns import json_column, time_column


class Cluster(SQLModel, table=True):
    """A cluster that workers are launched on, as the last look found it; `orchestrator.clusters` alone writes it."""

    name: str = Field(primary_key=True)
    kind: str
    token: str
    """Made once: jobs in the cluster carry it, and so are known as this hub's after any crash."""
    paused: bool = False
    """An operator wants nothing launched."""
    paused_by: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
    """Name of the operator who paused it; empty where the site has no accounts."""
    paused_since: datetime | None = time_column(nullable=True)
    """When they did; None where launching goes on."""
    held_by: str = ""
    held_until: datetime | None = time_column(nullable=True)
    """Until then one control process looks, decides and launches, and no other."""
    looked_at: datetime | None = time_column(nullable=True)
    verdict: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
    """Why it launches or not, as a sentence."""
    facts: dict[str, Any] = json_column()
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
    asked_at: datetime = time_column()
    running_since: datetime | None = time_column(nullable=True)
    up_at: datetime | None = time_column(nullable=True)
    """When its worker was first seen to be heard of."""
    ending_at: datetime | None = time_column(nullable=True)
    """When the cluster was asked to end it."""
    ended_at: datetime | None = time_column(nullable=True)
    is_death: bool = False
    """It ended before its worker was heard of, and nobody wanted that."""
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
