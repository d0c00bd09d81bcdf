"""Many models in one file: what each line asks for, as the API takes it, or what is wrong with the line.

models.txt      a model on each line, with `@revision` if wanted; `#` begins a comment
models.csv      a header with the request's fields: model, revision, precision, chat_template, …
models.jsonl    a request on each line
a folder        request files of the Open LLM Leaderboard (`*.json`), or one of them
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.errors import Refused
from submissions.request import ModelType, SubmissionRequest

MOST_LINES = 100_000
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")
KINDS = (
    ("continuously pretrained", ModelType.CONTINUOUSLY_PRETRAINED),
    ("pretrained", ModelType.PRETRAINED),
    ("fine-tuned", ModelType.FINE_TUNED),
    ("chat", ModelType.CHAT),
    ("instruction-tuned", ModelType.CHAT),
    ("rl-tuned", ModelType.CHAT),
    ("merge", ModelType.MERGE),
    ("multimodal", ModelType.MULTIMODAL),
)
"""Words of the leaderboard's model types, the most telling first; it writes a sign before them."""


class Line(NamedTuple):
    """One model of a batch."""

    where: str
    """`models.csv:3`, or a file's name."""
    asked: dict[str, Any]
    """Fields of a request; empty where the line cannot be read."""
    fault: str = ""


def read_batch(path: Path) -> list[Line]:
    """Every line of the file, or every request file of the folder, in order.

    Raises:
        Refused: there is nothing to read, or it is of no known form.
    """
    lines = list(_lines(path))
    if not lines:
        raise Refused(f"{path} names no model. Write one on each line.")
    return lines


def _lines(path: Path) -> Iterator[Line]:
    if path.is_dir():
        for file in sorted(path.rglob("*.json"))[:MOST_LINES]:
            yield _request_file(file)
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is not UTF-8 text. Save it as that.") from error
    if path.suffix == ".json":
        yield _request_file(path)
    elif path.suffix == ".jsonl":
        for number, line in _numbered(text):
            yield _of_json(f"{path.name}:{number}", line)
    elif path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(text, newline=""))
        try:
            for row in islice(rows, MOST_LINES):
                yield _of_row(f"{path.name}:{rows.line_num}", row)
        except csv.Error as error:
            raise Refused(f"{path} cannot be read as CSV ({error}). Nothing was submitted.") from error
    else:
        for number, line in _numbered(text):
            model, _, revision = line.partition("@")
            if not model.strip():
                yield Line(f"{path.name}:{number}", {}, "It names no model.")
                continue
            yield Line(f"{path.name}:{number}", _given({"model": model.strip(), "revision": revision.strip()}))


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines()[:MOST_LINES], start=1):
        is_record = line.lstrip().startswith("{")
        if kept := (line if is_record else line.partition("#")[0]).strip():
            yield number, kept


def _of_json(where: str, text: str) -> Line:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return Line(where, {}, "It is not valid JSON.")
    if not isinstance(found, dict) or not isinstance(found.get("model"), str) or not found["model"].strip():
        return Line(where, {}, "It is no JSON object that names a model.")
    return Line(where, leaderboard_request(found) if is_leaderboards(found) else _given(found))


def _of_row(where: str, row: Mapping[str | Any, Any]) -> Line:
    if None in row:
        return Line(where, {}, "It has more fields than the first line names.")
    if unknown := [str(field) for field in row if field not in SubmissionRequest.model_fields]:
        return Line(where, {}, f"There is no field '{unknown[0]}'. The first line names the request's fields.")
    if not str(row.get("model") or "").strip():
        return Line(where, {}, "It names no model.")
    return Line(where, _given({str(field): _typed(str(field), value) for field, value in row.items()}))


def _typed(field: str, value: Any) -> Any:
    """A cell as the API takes it: words for yes and no, numbers in digits."""
    word = str(value or "").strip()
    if field == "chat_template" and word.lower() in (*TRUE, *FALSE):
        return word.lower() in TRUE
    return int(word) if field in ("limit", "step") and word.isdecimal() else word


def _request_file(file: Path) -> Line:
    try:
        return _of_json(file.name, file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        return Line(file.name, {}, "It is not UTF-8 text.")


def is_leaderboards(found: Mapping[str, Any]) -> bool:
    """Whether a record is a request file of the Open LLM Leaderboard and not one of ours."""
    return "status" in found or "submitted_time" in found or "use_chat_template" in found


def leaderboard_request(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same submission in our words. What the leaderboard found out (size, job, status) is found out anew."""
    weights = str(found.get("weight_type") or "Original").lower()
    asked = {
        "model": found.get("model"),
        "revision": found.get("revision") if found.get("revision") not in ("", "main") else None,
        "precision": str(found.get("precision") or "auto").removeprefix("torch.").lower(),
        "weight_type": weights,
        "base_model": found.get("base_model") if weights == "adapter" else None,
        "model_type": model_type(str(found.get("model_type") or "")).value,
        "chat_template": found.get("use_chat_template"),
    }
    return _given(asked)


def model_type(text: str) -> ModelType:
    """What `🔶 : fine-tuned on domain-specific datasets` means here."""
    words = text.casefold()
    return next((kind for word, kind in KINDS if word in words), ModelType.UNKNOWN)


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value not in (None, "")}
