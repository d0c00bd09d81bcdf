"""What people outside are told, and how far each telling is. `orchestrator.notices` alone writes these."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Index, Text
from sqlmodel import Field, SQLModel

from orchestrator.tables.columns import json_column, time_column


class Notice(SQLModel, table=True):
    """Something worth telling, written in the transaction that made it true. Rows are never deleted."""

    __table_args__ = (Index("notice_open", "spread_at"),)

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(unique=True)
    """What happened, exactly: the same thing noted twice is one notice."""
    event: str
    """A constant of `orchestrator.notices.events`."""
    evaluation_id: int | None = Field(default=None, foreign_key="evaluation.id")
    rerun_id: int | None = None
    facts: dict[str, Any] = json_column()
    """What the text needs and no row tells."""
    at: datetime = time_column()
    spread_at: datetime | None = time_column(nullable=True)
    """When it was decided who is told; None while that is open."""


class Delivery(SQLModel, table=True):
    """One notice on its way to one target."""

    __table_args__ = (Index("delivery_due", "state", "due_at"),)

    notice_id: int = Field(primary_key=True, foreign_key="notice.id")
    target: str = Field(primary_key=True)
    """Name in the notifications file; its address is nowhere in the database."""
    state: str = "pending"
    """`pending`, `sent`, `given_up`."""
    tries: int = 0
    due_at: datetime = time_column()
    holder: str = ""
    """Who sends it now: of several control processes one."""
    held_until: datetime | None = time_column(nullable=True)
    sent_at: datetime | None = time_column(nullable=True)
    sentence: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
    """Why it was given up or not sent yet."""
