"""Checkpoints of a training run: which evaluations belong to which series, at which step."""

from datetime import datetime

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel

from orchestrator.tables.columns import time_column


class SeriesPoint(SQLModel, table=True):
    """One evaluation's place in a series of somebody's. `orchestrator.series` alone writes these.

    It hangs on the evaluation and not on the submission: who asks for what is there already gets a point of their own.
    """

    __table_args__ = (Index("series_point_name", "name", "owner"),)

    evaluation_id: int = Field(foreign_key="evaluation.id", primary_key=True)
    owner: int = Field(primary_key=True)
    """Number of the person whose series it is; 0 without accounts."""
    name: str = Field(primary_key=True)
    step: int = Field(sa_type=BigInteger)
    """Of the training: steps, tokens, whatever the owner counts by."""
    at: datetime = time_column()
