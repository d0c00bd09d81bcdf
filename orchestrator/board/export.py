"""A board as plain records and as CSV: the same rows and numbers that the page shows, unrounded."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from orchestrator.board.standings import Board, Standing

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
"""A spreadsheet may run a cell that begins so; names come from strangers."""


def as_record(row: Standing) -> dict[str, Any]:
    """One row as JSON shows it."""
    return {
        "rank": row.rank,
        "evaluation": row.evaluation,
        "model": row.model,
        "revision": row.revision,
        "type": row.model_type,
        "weight_type": row.weight_type,
        "base_model": row.base_model,
        "architecture": row.architecture,
        "parameters": row.parameters,
        "precision": row.precision,
        "licence": row.licence,
        "chat_template": row.chat_template,
        "engine": row.engine,
        "suite": row.suite,
        "suite_version": row.suite_version,
        "average": row.average,
        "average_stderr": row.average_stderr,
        "benchmarks": {
            name: {"value": cell.value, "raw": cell.raw, "stderr": cell.stderr, "samples": cell.samples}
            for name, cell in row.cells.items()
        },
        "limit": row.document_limit,
        "apart_because": row.apart_because or None,
        "submitted_at": row.submitted_at.isoformat() if row.submitted_at else None,
        "ended_at": row.ended_at.isoformat() if row.ended_at else None,
    }


def as_records(board: Board) -> dict[str, Any]:
    """The whole board as JSON shows it."""
    return {
        "suite": board.suite.name,
        "suite_version": board.suite.version,
        "title": board.suite.title,
        "benchmarks": [benchmark.name for benchmark in board.suite.benchmarks],
        "ranked": [as_record(row) for row in board.ranked],
        "apart": [as_record(row) for row in board.apart],
    }


def as_csv(board: Board) -> str:
    """The board as CSV: ranked rows first, then those listed apart with their reason."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerows(_csv_rows(board))
    return out.getvalue()


def _csv_rows(board: Board) -> Iterator[list[Any]]:
    names = [benchmark.name for benchmark in board.suite.benchmarks]
    plain = [name for name in as_record(_EMPTY) if name != "benchmarks"]
    measures = ("value", "raw", "stderr", "samples")
    titles = {"value": "", "raw": " raw", "stderr": " stderr", "samples": " n"}
    yield [safe_cell(title) for title in [*plain, *(name + titles[measure] for name in names for measure in measures)]]
    for row in (*board.ranked, *board.apart):
        record = as_record(row)
        cells = record["benchmarks"]
        yield [
            safe_cell(value)
            for value in [
                *(record[name] for name in plain),
                *(cells.get(name, {}).get(measure) for name in names for measure in measures),
            ]
        ]


_EMPTY = Standing(evaluation=0, model="", revision="", suite="", suite_version="", precision="", engine="")


def safe_cell(value: Any) -> Any:
    """The value for a CSV cell; text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value
