"""What a board shows as plain records, CSV, Markdown and Parquet: the same rows, order and columns, unrounded."""

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from orchestrator.board.columns import Column
from orchestrator.board.ties import Tie
from orchestrator.board.view import Line, Shown
from orchestrator.errors import Refused

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
"""A spreadsheet may run a cell that begins so; names come from strangers."""


def as_record(line: Line) -> dict[str, Any]:
    """One row as JSON shows it."""
    row = line.row
    return {
        "rank": line.rank,
        "places": line.places,
        "tie": _tie(line.tie),
        "evaluation": row.evaluation,
        "model": row.model,
        "revision": row.revision,
        "type": row.model_type,
        "weight_type": row.weight_type,
        "base_model": row.base_model,
        "architecture": row.architecture,
        "parameters": row.parameters,
        "active_parameters": row.active_parameters,
        "precision": row.precision,
        "licence": row.licence,
        "chat_template": row.chat_template,
        "engine": row.engine,
        "suite": row.suite,
        "suite_version": row.suite_version,
        "average": line.average,
        "average_stderr": line.stderr,
        "benchmarks": {
            name: {"value": cell.value, "raw": cell.raw, "stderr": cell.stderr, "samples": cell.samples}
            for name, cell in row.cells.items()
        },
        "limit": row.document_limit,
        "apart_because": row.apart_because or None,
        "device_seconds": row.device_seconds,
        "tokens_per_second": row.tokens_per_second,
        "imported_from": row.imported_from or None,
        "flags": [{"kind": flag.kind, "reason": flag.reason, "link": flag.link or None} for flag in row.flags],
        "submitted_at": row.submitted_at.isoformat() if row.submitted_at else None,
        "ended_at": row.ended_at.isoformat() if row.ended_at else None,
    }


def _tie(tie: Tie | None) -> dict[str, Any] | None:
    """`best` is the evaluation that began the tie; the difference is its average less the row's."""
    if tie is None:
        return None
    own: dict[str, Any] = {"first": tie.first, "last": tie.last, "best": tie.best.evaluation}
    found = tie.difference
    if found is None:
        return own
    return own | {"difference": found.value, "stderr": found.stderr, "paired_documents": found.documents}


def as_records(shown: Shown) -> dict[str, Any]:
    """The whole answer as JSON shows it."""
    return {
        "suite": shown.suite.name,
        "suite_version": shown.suite.version,
        "title": shown.suite.title,
        "benchmarks": [benchmark.name for benchmark in shown.suite.benchmarks],
        "columns": [column.key for column in shown.columns],
        "total": shown.ranked,
        "fitting": shown.fitting,
        "page": shown.page,
        "pages": shown.pages,
        "as_of": shown.newest.isoformat() if shown.newest else None,
        "notes": list(shown.problems),
        "pinned": [as_record(line) for line in shown.pinned],
        "ranked": [as_record(line) for line in shown.lines],
        "apart": [as_record(line) for line in shown.apart],
    }


def as_csv(shown: Shown) -> str:
    """Ranked rows first, then those listed apart with their reason; text that would be a formula is made safe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([safe_cell(name) for name, _ in _fields(shown)])
    for values in _values(shown):
        writer.writerow([safe_cell(value.isoformat() if isinstance(value, datetime) else value) for value in values])
    return out.getvalue()


def as_markdown(shown: Shown) -> str:
    """A table of the shown columns, numbers to two decimals."""
    fields = _fields(shown, beside=False)
    lines = [
        "| " + " | ".join(_markdown(name) for name, _ in fields) + " |",
        "|" + "|".join(" --- " for _ in fields) + "|",
    ]
    lines += ["| " + " | ".join(_markdown(value(line)) for _, value in fields) + " |" for line in _all(shown)]
    return "\n".join(lines) + "\n"


def as_parquet(shown: Shown) -> bytes:
    """The same columns as the CSV, typed.

    Raises:
        Refused: pyarrow is not installed on the hub.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise Refused("Parquet needs pyarrow on the hub: pip install 'evalyard[parquet]'.") from error
    fields = _fields(shown)
    columns = list(zip(*_values(shown), strict=True)) or [()] * len(fields)
    kinds = {"evaluation": pyarrow.int64(), "rank": pyarrow.int64(), "limit": pyarrow.int64()}
    arrays = [
        pyarrow.array(values, kinds.get(name) or _parquet_type(pyarrow, shown, name))
        for (name, _), values in zip(fields, columns, strict=True)
    ]
    out = io.BytesIO()
    parquet.write_table(pyarrow.table(dict(zip((name for name, _ in fields), arrays, strict=True))), out)
    return out.getvalue()


def safe_cell(value: Any) -> Any:
    """The value for a CSV cell; text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value


def _all(shown: Shown) -> Iterator[Line]:
    yield from shown.lines
    yield from shown.apart


def _values(shown: Shown) -> Iterator[list[Any]]:
    fields = _fields(shown)
    for line in _all(shown):
        yield [value(line) for _, value in fields]


def _fields(shown: Shown, *, beside: bool = True) -> list[tuple[str, Any]]:
    """Name and getter of each column of an export; `beside`: with the raw value, error and samples of each score."""
    raw = shown.request.show == "raw"
    fields: list[tuple[str, Any]] = []
    for column in shown.columns:
        if column.benchmark:
            fields += _score_fields(column.benchmark, raw=raw)[: None if beside else 1]
        else:
            fields.append((column.key, _getter(column)))
            if column.key == "average" and beside:
                fields.append(("average stderr", lambda line: line.stderr))
    fields.append(("evaluation", lambda line: line.row.evaluation))
    fields.append(("limit", lambda line: line.row.document_limit))
    fields.append(("apart_because", lambda line: line.row.apart_because or None))
    return fields


def _getter(column: Column) -> Any:
    if column.key == "rank":
        return lambda line: line.rank
    if column.key == "places":
        return lambda line: "–".join(map(str, line.places)) if line.places else None
    if column.key == "average":
        return lambda line: line.average
    return lambda line: column.value(line.row)


def _score_fields(name: str, *, raw: bool) -> list[tuple[str, Any]]:
    """The shown number first."""

    def of(part: str) -> Any:
        return lambda line: getattr(line.row.cells[name], part) if name in line.row.cells else None

    own = [(name, of("value")), (f"{name} raw", of("raw"))]
    if raw:
        own = [(f"{name} raw", of("raw"))]
    return [*own, (f"{name} stderr", of("stderr")), (f"{name} n", of("samples"))]


def _parquet_type(pyarrow: Any, shown: Shown, name: str) -> Any:
    column = shown.known.get(name)
    if column is None or column.benchmark:
        return pyarrow.string() if name == "apart_because" else pyarrow.float64()
    kinds = {
        "text": pyarrow.string(),
        "yes": pyarrow.bool_(),
        "count": pyarrow.int64(),
        "date": pyarrow.timestamp("us", tz="UTC"),
    }
    return kinds.get(column.kind, pyarrow.float64())


def _markdown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:.2f}"
    text = " ".join(str(value).split())
    for character in "\\`*_[]<>|#":
        text = text.replace(character, "\\" + character)
    return text
