"""Reads rows of a published board out of a folder, whatever layout it has. Trusts nothing that it reads.

JSON and Parquet alone, of bounded size; a row that cannot stand is refused with a sentence, and the others go on.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import Refused
from orchestrator.exchange.row import Row
from orchestrator.suites import Suite

MOST_ROWS = 100_000
MOST_FILES = 300_000
MOST_FILE_BYTES = 32 << 20
MOST_TABLE_BYTES = 512 << 20
MOST_BYTES = 8 << 30
"""Of a whole source on the Hub."""

SuiteFinder = Callable[[str, str], Suite]
"""Name and version of a suite that this hub knows; raises NotFound."""


@dataclass(frozen=True)
class Refusal:
    """A row or file that was not taken, and why."""

    what: str
    reason: str


@dataclass
class Found:
    """What a source has."""

    layout: str
    read_as: str
    """What it was taken for, in words."""
    rows: list[tuple[Suite, Row]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    digest: str = ""
    is_whole: bool = True
    """Whether everything was read: then what is missing is gone there."""

    def refuse(self, what: str, reason: str) -> None:
        self.refused.append(Refusal(" ".join(what.split())[:200], reason[:500]))


def read_json(path: Path, *, most: int = MOST_FILE_BYTES) -> Any:
    """The JSON of a file; NaN and infinities, which no JSON has, are read as nothing.

    Raises:
        ValueError: it is none, too large or too deep.
    """
    if path.is_symlink() or not path.is_file():
        raise ValueError("it is no plain file")
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"it has {size >> 20} MiB; at most {most >> 20} are read")
    try:
        return json.loads(path.read_bytes(), parse_constant=lambda _: None, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("its parts are nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"it is no JSON: {str(error)[:120]}") from error


def read_lines(path: Path) -> Iterator[Any]:
    """The records of a file with a JSON text a line.

    Raises:
        ValueError: a line is none, or too large.
    """
    if path.is_symlink() or path.stat().st_size > MOST_TABLE_BYTES:
        raise ValueError(f"it is larger than {MOST_TABLE_BYTES >> 20} MiB")
    with path.open("rb") as lines:
        while line := lines.readline(MOST_FILE_BYTES):
            if len(line) == MOST_FILE_BYTES:
                raise ValueError("a line of it is too large")
            if line.strip():
                try:
                    yield json.loads(line, parse_constant=lambda _: None, parse_float=_finite)
                except RecursionError as error:
                    raise ValueError("a line of it is nested too deeply") from error


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a Parquet file of plain columns.

    Raises:
        ValueError: it is none, too large, or pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError("Parquet needs pyarrow on the hub: pip install 'evalyard[parquet]'") from None
    if path.is_symlink() or path.stat().st_size > MOST_TABLE_BYTES:
        raise ValueError(f"it is larger than {MOST_TABLE_BYTES >> 20} MiB")
    try:
        table = parquet.ParquetFile(path)
        facts = table.metadata
        unpacked = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
        if facts.num_rows > MOST_ROWS or unpacked > MOST_TABLE_BYTES or len(table.schema_arrow) > 500:
            raise ValueError("it has more rows, columns or bytes than a board")
        # Names of columns may hold points, and nested ones are no board's.
        if any(pyarrow.types.is_nested(column.type) for column in table.schema_arrow):
            raise ValueError("a column of it is no plain value")
        for batch in table.iter_batches(batch_size=1000):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"it cannot be read as Parquet: {str(error)[:120]}") from error


def parse_row(record: Any) -> Row:
    """A row of a record.

    Raises:
        ValueError: with everything that is wrong with it, in words.
    """
    try:
        return Row.model_validate(record)
    except ValidationError as error:
        told = [
            f"{'.'.join(str(part) for part in each['loc']) or 'row'}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors(include_url=False, include_input=False, include_context=False)[:3]
        ]
        raise ValueError("; ".join(told)) from None


def files_below(folder: Path, *patterns: str) -> list[Path]:
    """The plain files below a folder that fit a pattern, by name; no hidden ones.

    Raises:
        Refused: there are more than any board has.
    """
    found: set[Path] = set()
    for pattern in patterns:
        for path in folder.rglob(pattern):
            if not any(part.startswith(".") for part in path.relative_to(folder).parts):
                found.add(path)
        if len(found) > MOST_FILES:
            raise Refused(f"{folder} has more than {MOST_FILES:,} files. Name the folder of one board.")
    return sorted(found)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
