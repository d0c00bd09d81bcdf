"""The rows of every table as lines of JSON and back: readable, and the same for SQLite and PostgreSQL.

Knows no table by name and decides nothing about them; what a backup is, is for `orchestrator.admin`.
"""

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard
from sqlalchemy import Connection, DateTime, Engine, MetaData, Table, func, insert, select, text
from sqlalchemy.types import Integer

from orchestrator.artifacts import file_sha256

BATCH_ROWS = 500

Progress = Callable[[str, int, int], None]
"""Called with what is being copied, how many are done, and of how many."""


def is_empty(engine: Engine, schema: str) -> bool:
    """Whether the database holds nothing, or the bare tables that an interrupted restore of this schema left."""
    with engine.connect() as connection:
        metadata = MetaData()
        metadata.reflect(connection)
        if not metadata.tables:
            return True
        version = metadata.tables.get("alembic_version")
        if version is None or connection.execute(select(version)).scalars().all() != [schema]:
            return False
        tables = (table for table in metadata.tables.values() if table is not version)
        return not any(connection.execute(select(table).limit(1)).first() for table in tables)


def write_tables(engine: Engine, folder: Path, tell: Progress) -> dict[str, dict[str, Any]]:
    """Every table in an order in which rows may be inserted again, all of one moment."""
    written: dict[str, dict[str, Any]] = {}
    snapshot = engine.execution_options(
        evalyard_read_only=True,
        **({"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}),
    )
    with snapshot.connect() as connection:
        metadata = MetaData()
        metadata.reflect(connection)
        tables = [table for table in metadata.sorted_tables if table.name != "alembic_version"]
        for number, table in enumerate(tables, start=1):
            path = folder / f"{table.name}.jsonl.zst"
            rows = _write_rows(connection, table, path)
            written[table.name] = {"rows": rows, "sha256": file_sha256(path)}
            tell("tables", number, len(tables))
    return written


def _write_rows(connection: Connection, table: Table, path: Path) -> int:
    rows = 0
    result = connection.execution_options(yield_per=BATCH_ROWS).execute(
        select(table).order_by(*table.primary_key.columns)
    )
    with path.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw, closefd=False) as out:
        for row in result.mappings():
            line = {name: plain(value) for name, value in row.items()}
            out.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            rows += 1
    return rows


def read_table(connection: Connection, name: str, path: Path) -> None:
    """Insert the rows of a file into the table of this name, and have the next row numbered after them."""
    table = Table(name, MetaData(), autoload_with=connection)
    times = {column.name for column in table.columns if isinstance(column.type, DateTime)}
    batch: list[dict[str, Any]] = []
    for line in _lines(path):
        row = json.loads(line)
        batch.append({key: _time(value) if key in times else value for key, value in row.items()})
        if len(batch) == BATCH_ROWS:
            connection.execute(insert(table), batch)
            batch = []
    if batch:
        connection.execute(insert(table), batch)
    key = list(table.primary_key.columns)
    if connection.dialect.name == "postgresql" and len(key) == 1 and isinstance(key[0].type, Integer):
        # Rows came with their numbers; the next one must not take a number again.
        highest = connection.execute(select(func.max(key[0]))).scalar()
        if highest is not None:
            sequence = text("SELECT setval(pg_get_serial_sequence(:name, :key), :highest)")
            connection.execute(sequence, {"name": name, "key": key[0].name, "highest": highest})


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        yield from io.BufferedReader(stream)


def plain(value: Any) -> Any:
    """A column's value as JSON has it."""
    if isinstance(value, datetime):
        # SQLite keeps UTC without saying so.
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    return value


def _time(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None
