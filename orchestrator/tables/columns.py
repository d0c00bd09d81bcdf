"""Kinds of columns that every table uses; they mean the same on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Column, DateTime, Enum, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlmodel import Field


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


def time_column(*, nullable: bool = False) -> Any:
    return Field(default=None, sa_type=UtcDateTime, nullable=nullable)


def enum_column(kind: type[StrEnum], **field: Any) -> Any:
    """Stored as its value in a plain text column: a later version may add values without changing the schema."""
    values = Enum(kind, native_enum=False, length=32, values_callable=lambda members: [str(m.value) for m in members])
    return Field(sa_type=values, **field)


def json_column() -> Any:
    return Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
