"""Reads contents tables of the Open LLM Leaderboard: one flat row for each evaluated model, as JSON, JSONL or Parquet.

The published average stands as it is, since it was taken before the columns were rounded; it must follow from them.
What that board shows as a number and can only be a broken run is taken as a failure.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.errors import NotFound, Refused
from orchestrator.exchange.contents import AVERAGE
from orchestrator.exchange.leaderboard_words import WEIGHTS, column, precision_of, type_of
from orchestrator.exchange.row import Row, check_against
from orchestrator.exchange.sources import (
    MOST_ROWS,
    MOST_TABLE_BYTES,
    Found,
    files_below,
    parse_row,
    read_json,
    read_lines,
    read_parquet,
)
from orchestrator.rows import Progress
from orchestrator.suites import Suite, SuiteBenchmark
from orchestrator.wire import EngineFamily, FailureKind, canonical_json

TOLERANCE = 0.02
"""The columns are rounded to two decimals, and so is the average."""
BROKEN = "The published value is exactly 0, which only a broken run gives: constant or NaN answers."
NEVER_ZERO = ("truthfulqa_mc2", "truthfulqa_mc1")
"""lm-eval tasks whose score is a mean of probabilities or of easy choices, which no working model brings to 0."""
NAMES = ("fullname", "model", "model_name_for_query")


def is_contents(columns: Iterable[str]) -> bool:
    """Whether a record with these columns is a row of such a table."""
    known = {name.casefold().strip() for name in columns}
    return any(name in known for name in NAMES) and any(name.startswith("average") for name in known)


def read_contents(folder: Path, suites: Mapping[str, Suite], *, only: str | None, progress: Progress) -> Found:
    """The rows of every contents table in a folder, in their order.

    Raises:
        Refused: there is no such table, or it cannot be told which suite it is of.
    """
    found = Found("open-llm-leaderboard", "a contents table of the Open LLM Leaderboard")
    digest = hashlib.sha256()
    rows = 0
    seen: set[tuple[str, str]] = set()
    for path in _tables(folder):
        shown = path.relative_to(folder).as_posix() if path != folder else path.name
        suite: Suite | None = None
        try:
            for number, record in enumerate(_records(path), start=1):
                if not isinstance(record, dict) or not is_contents(record):
                    raise ValueError("it is no contents table: a row has no model or no average")
                rows += 1
                if rows > MOST_ROWS:
                    raise Refused(f"This source has more than {MOST_ROWS:,} rows.")
                digest.update(canonical_json({str(key): str(value) for key, value in record.items()}))
                cells = {str(key).casefold().strip(): value for key, value in record.items()}
                suite = suite or _suite_of(cells, suites, only=only)
                what = f"{shown} row {number} {_text(_first(cells, NAMES)) or ''}"
                try:
                    row = as_row(suite, cells, number=rows)
                    if reason := check_against(suite, row, tolerance=TOLERANCE):
                        raise ValueError(reason)
                    if (suite.name, row.identity) in seen:
                        raise ValueError("the same model, revision and precision is there before")
                except (ValueError, OverflowError) as error:
                    found.refuse(what, str(error))
                    continue
                seen.add((suite.name, row.identity))
                found.rows.append((suite, row))
                progress("rows", rows, rows)
        except (ValueError, OSError) as error:
            found.refuse(shown, str(error))
            found.is_whole = False
    if not rows:
        told = "; ".join(f"{one.what}: {one.reason}" for one in found.refused[:3])
        raise Refused(
            f"No published board was found{': ' + told if told else ''}. Name a folder or hf://datasets/org/name that "
            "`evalyard publish` wrote, or contents or results files of the Open LLM Leaderboard."
        )
    found.digest = digest.hexdigest()
    return found


def as_row(suite: Suite, cells: Mapping[str, Any], *, number: int) -> Row:
    """A flat row, its columns in lower case, as a row of the suite.

    Raises:
        ValueError: with what is wrong with it.
    """
    scores: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    plain: list[float] = []
    for benchmark in suite.benchmarks:
        name = column(suite, benchmark.name).casefold()
        value, raw = _number(cells.get(name), name), _number(cells.get(f"{name} raw"), f"{name} raw")
        if value is not None:
            plain.append(value)
        if value is None:
            missing.append({"benchmark": benchmark.name, "kind": FailureKind.INVALID_OUTPUT})
        elif value == 0.0 and _is_broken_at_zero(benchmark):
            missing.append({"benchmark": benchmark.name, "kind": FailureKind.INVALID_OUTPUT, "sentence": BROKEN})
        else:
            own = {"benchmark": benchmark.name, "metric": "value", "value": value}
            own["stderr"] = _number(cells.get(f"{name} stderr"), f"{name} stderr")
            own["samples"] = int(_number(cells.get(f"{name} samples"), f"{name} samples") or 0)
            scores.append(own)
            if raw is not None or not benchmark.normalised:
                number_raw = raw * 100 if raw is not None else value
                scores.append({"benchmark": benchmark.name, "metric": "raw", "value": number_raw})
    average = _number(_first(cells, (AVERAGE.casefold(), "average", "average (%)")), "average")
    if average is not None and len(plain) == len(suite.benchmarks):
        mean = math.fsum(plain) / len(plain)
        if abs(mean - average) > TOLERANCE:
            raise ValueError(f"its average {average:.2f} does not follow from its benchmarks, whose mean is {mean:.2f}")
    parameters = _number(_first(cells, ("#params (b)", "#params", "params")), "#params")
    at = _moment(_first(cells, ("submission date", "submitted_time", "upload to hub date")))
    weights = {text.casefold(): name for name, text in WEIGHTS.items()}
    return parse_row(
        {
            "evaluation": number,
            "model": _text(_first(cells, NAMES)),
            "revision": _text(_first(cells, ("model sha", "revision", "sha"))) or "unknown",
            "precision": precision_of(_text(cells.get("precision")) or ""),
            "weight_type": weights.get((_text(cells.get("weight type")) or "original").casefold(), "original"),
            "base_model": _model_or_none(cells.get("base model")),
            "model_type": "merge" if _yes(cells.get("merged")) else type_of(_text(cells.get("type")) or ""),
            "chat_template": _yes(cells.get("chat template")),
            "architecture": _text(cells.get("architecture")) or None,
            "parameters": round(parameters * 1e9) if parameters is not None and parameters > 0 else None,
            "licence": _text(_first(cells, ("hub license", "license"))) or None,
            "on_hub": cells.get("available on the hub") is not False,
            "engine": _engine(cells),
            "average": None if missing else average,
            "submitted_at": at,
            "ended_at": at,
            "scores": scores,
            "missing": missing,
            "flags": [{"kind": "other", "reason": "Flagged on the board that it was imported from."}]
            if _yes(cells.get("flagged"))
            else [],
        }
    )


def _tables(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    # A table is often there twice, in several forms: the first form that there is counts.
    for pattern in ("*.parquet", "*.jsonl", "*.json"):
        found = [path for path in files_below(folder, pattern) if "requests" not in path.parts]
        if found:
            return found
    return []


def _records(path: Path) -> Iterable[Any]:
    if path.suffix == ".parquet":
        return read_parquet(path)
    if path.suffix == ".jsonl":
        return read_lines(path)
    content = read_json(path, most=MOST_TABLE_BYTES)
    if isinstance(content, dict):
        content = content.get("rows", content.get("data", [content]))
    if not isinstance(content, list):
        raise ValueError("it is no list of rows")
    # The Hub's data set viewer wraps each row.
    return [row["row"] if isinstance(row, dict) and isinstance(row.get("row"), dict) else row for row in content]


def _suite_of(cells: Mapping[str, Any], suites: Mapping[str, Suite], *, only: str | None) -> Suite:
    """The suite all of whose benchmarks are columns.

    Raises:
        Refused: there is none, or several.
        NotFound: there is none of the name that was given.
    """
    if only is not None:
        if only not in suites:
            raise NotFound(f"There is no suite {only[:60]!r} here.")
        return suites[only]
    fits = [
        suite
        for suite in suites.values()
        if all(column(suite, benchmark.name).casefold() in cells for benchmark in suite.benchmarks)
    ]
    if len(fits) != 1:
        names = ", ".join(suite.name for suite in fits or suites.values())
        raise Refused(f"The columns do not say which suite this board is of. Name one with --suite: {names}.")
    return fits[0]


def _is_broken_at_zero(benchmark: SuiteBenchmark) -> bool:
    return any(task in NEVER_ZERO for task in benchmark.tasks)


def _engine(cells: Mapping[str, Any]) -> EngineFamily:
    """What the row says; without a word transformers, which that leaderboard ran."""
    said = _text(cells.get("engine"))
    return EngineFamily(said) if said else EngineFamily.TRANSFORMERS


def _number(value: Any, name: str) -> float | None:
    """Raises ValueError for what is neither a number nor missing."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is no number")
    if not math.isfinite(value):
        raise ValueError(f"{name} is not finite")
    return float(value)


def _first(cells: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((cells[name] for name in names if cells.get(name) not in (None, "")), None)


def _text(value: Any) -> str | None:
    return value.strip() if isinstance(value, str) else None


def _yes(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().casefold() in ("true", "yes"))


def _model_or_none(value: Any) -> str | None:
    """The base model; a table may say several, or that there is none, in words."""
    text = _text(value)
    return text if text and "/" in text and " " not in text and "," not in text else None


def _moment(value: Any) -> datetime | None:
    """Raises ValueError for what is no date."""
    if isinstance(value, datetime):
        return value
    text = _text(value)
    return datetime.fromisoformat(text) if text else None
