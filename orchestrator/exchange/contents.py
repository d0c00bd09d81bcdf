"""The contents table: one flat row for each finished evaluation, with the columns of the leaderboard's v2.

After those come Evalyard's own columns. Numbers are unrounded: `Average ⬆️` and the benchmarks from 0 to 100, the raw
ones from 0 to 1, as in `open-llm-leaderboard/contents`.
"""

import io
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any
from urllib.parse import quote

from orchestrator.board.columns import Footing
from orchestrator.board.standings import Standing
from orchestrator.exchange.leaderboard_words import TYPES, WEIGHTS, column, precision_text, type_text
from orchestrator.suites import Suite
from orchestrator.wire import Precision

TEXTS = ("eval_name", "Precision", "Type", "T", "Weight type", "Architecture", "Model", "fullname", "Model sha")
LATER_TEXTS = (
    "Hub License", "Upload To Hub Date", "Submission Date", "Base Model", "Suite", "Suite version", "Engine",
    "Imported",
)  # fmt: skip
BOOLEANS = ("Available on the hub", "MoE", "Flagged", "Chat Template", "Merged", "Official Providers")
INTEGERS = ("Hub ❤️", "Generation", "Rank", "Document limit")
AVERAGE = "Average ⬆️"


def contents_row(suite: Suite, row: Standing, *, rank: int | None, footing: Footing, official: bool) -> dict[str, Any]:
    """One row; None where the hub does not know (likes, upload date and generation are the Hub's)."""
    cells: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for benchmark in suite.benchmarks:
        cell, name = row.cells.get(benchmark.name), column(suite, benchmark.name)
        cells[f"{name} Raw"] = cell.raw / 100 if cell is not None and cell.raw is not None else None
        cells[name] = cell.value if cell is not None else None
        own[f"{name} Stderr"] = cell.stderr if cell is not None else None
        own[f"{name} Samples"] = cell.samples if cell is not None else None
    precision = precision_text(Precision(row.precision))
    return {
        "eval_name": f"{row.model.replace('/', '_')}_{precision}_{row.revision}_{row.chat_template}",
        "Precision": precision,
        "Type": type_text(row.model_type),
        "T": TYPES.get(row.model_type, TYPES["unknown"])[0],
        "Weight type": WEIGHTS.get(row.weight_type, "Original"),
        "Architecture": row.architecture,
        "Model": model_link(row),
        "fullname": row.model,
        "Model sha": row.revision,
        AVERAGE: row.average,
        "Hub License": row.licence,
        "Hub ❤️": None,
        "#Params (B)": row.parameters / 1e9 if row.parameters is not None else None,
        "Available on the hub": row.on_hub,
        "MoE": row.is_mixture,
        "Flagged": bool(row.flags),
        "Chat Template": row.chat_template,
        "CO₂ cost (kg)": footing.carbon_kilograms(row.device_seconds),
        **cells,
        "Merged": row.model_type == "merge",
        "Official Providers": official,
        "Upload To Hub Date": None,
        "Submission Date": _day(row.submitted_at),
        "Generation": None,
        "Base Model": row.base_model,
        "Rank": rank,
        **own,
        "Average Stderr": row.average_stderr,
        "Document limit": row.document_limit,
        "Suite": row.suite,
        "Suite version": row.suite_version,
        "Engine": row.engine,
        "Imported": row.imported_from or None,
    }


def as_jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n" for row in rows)


def as_parquet(suite: Suite, rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """The same rows, typed; None where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return None
    names = list(rows[0]) if rows else []
    samples = {f"{column(suite, benchmark.name)} Samples" for benchmark in suite.benchmarks}

    def kind(name: str) -> Any:
        if name in TEXTS or name in LATER_TEXTS:
            return pyarrow.string()
        if name in BOOLEANS:
            return pyarrow.bool_()
        return pyarrow.int64() if name in INTEGERS or name in samples else pyarrow.float64()

    arrays = {name: pyarrow.array([row[name] for row in rows], kind(name)) for name in names}
    out = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays), out)
    return out.getvalue()


def model_link(row: Standing) -> str:
    """The name as the leaderboard's table has it: a link to the Hub, every character of the name escaped."""
    name = escape(row.model)
    if not row.on_hub or "/" not in row.model:
        return name
    return f'<a target="_blank" href="https://huggingface.co/{quote(row.model)}">{name}</a>'


def _day(at: datetime | None) -> str | None:
    return f"{at:%Y-%m-%d}" if at is not None else None
