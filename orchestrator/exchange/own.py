"""Reads what `evalyard publish` wrote back, exactly: every row stands in its results file, under `evalyard`."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.errors import NotFound, Refused
from orchestrator.exchange.layout import FORMAT
from orchestrator.exchange.places import MANIFEST, MOST_MANIFEST_BYTES, parse_manifest
from orchestrator.exchange.reading import public_provenance
from orchestrator.exchange.row import check_against
from orchestrator.exchange.sources import (
    MOST_FILE_BYTES,
    MOST_ROWS,
    Found,
    SuiteFinder,
    parse_row,
    read_json,
)
from orchestrator.rows import Progress
from orchestrator.suite_versions import score_digest
from orchestrator.suites import Suite

OWN = "evalyard"
"""The name of this layout."""
TOLERANCE = 1e-6
"""Nothing is rounded in this layout."""


class Damaged(ValueError):
    """A file is not the one that was published."""


def is_own(names: Iterable[str]) -> bool:
    """Whether these files of a place are such a board."""
    return MANIFEST in names


def read_own(folder: Path, find: SuiteFinder, *, only: str | None, progress: Progress) -> Found:
    """The rows of a published board, by their numbers at the source.

    Raises:
        Refused: it was not published whole, or by a newer Evalyard.
        NotFound: none of its suites is known here.
    """
    try:
        content = _bytes(folder / MANIFEST)
    except Damaged as error:
        raise Refused(f"{MANIFEST} in {folder} cannot be read: {error}.") from error
    manifest = parse_manifest(content, str(folder))
    assert manifest is not None
    if not manifest["complete"]:
        raise Refused("This board is being published, or was stopped in between. Publish it again, then import it.")
    found = Found(OWN, "what `evalyard publish` wrote", digest=hashlib.sha256(content).hexdigest())
    suites = _suites(folder, manifest, find, found, only=only)
    listed = [path for path in manifest["files"] if _is_results(path, suites)]
    if len(listed) > MOST_ROWS:
        raise Refused(f"This board has {len(listed):,} rows; at most {MOST_ROWS:,} are taken.")
    for number, path in enumerate(sorted(listed), start=1):
        try:
            _read_row(folder, path, manifest, suites[path.split("/", 1)[0]], found)
        except (ValueError, OSError) as error:
            found.refuse(path, str(error))
            # A file that is being replaced is no row that is gone.
            found.is_whole = found.is_whole and not isinstance(error, Damaged | OSError)
        progress("rows", number, len(listed))
    found.rows.sort(key=lambda pair: (pair[0].name, pair[1].evaluation))
    return found


def _suites(
    folder: Path, manifest: dict[str, Any], find: SuiteFinder, found: Found, *, only: str | None
) -> dict[str, Suite]:
    """By their folders there."""
    suites: dict[str, Suite] = {}
    unknown: list[str] = []
    for path in manifest["files"]:
        parts = path.split("/")
        if len(parts) != 2 or parts[1] != "suite.json":
            continue
        try:
            record = read_json(folder / path)
            name, version, digest = str(record["name"]), str(record["version"]), record["digest"]
            if only is not None and name != only:
                continue
            suite = find(name[:60], version[:60])
        except (ValueError, KeyError, TypeError) as error:
            found.refuse(path, f"it describes no suite: {error}")
            continue
        except NotFound as error:
            unknown.append(f"{error} What it is there: {path}.")
            found.refuse(path, f"{error}")
            continue
        if score_digest(suite) != digest:
            reason = (
                f"the suite {suite.name} {suite.version} is another one there: its scores would be mixed with others. "
                "Compare both suite files"
            )
            unknown.append(f"{reason}.")
            found.refuse(path, reason)
            continue
        suites[parts[0]] = suite
    if not suites and (unknown or only):
        raise NotFound(" ".join(unknown) or f"This board has no suite {only!r}.")
    return suites


def _read_row(folder: Path, path: str, manifest: dict[str, Any], suite: Suite, found: Found) -> None:
    told = manifest["files"][path]
    content = _bytes(folder / path)
    if not isinstance(told, dict) or hashlib.sha256(content).hexdigest() != told.get("sha256"):
        raise Damaged("its bytes are not those of the manifest: it is damaged, or being published")
    try:
        record = json.loads(content)["evalyard"]
    except (RecursionError, KeyError, TypeError) as error:
        raise ValueError("it has no row of Evalyard") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError("it was published by a newer Evalyard")
    if (record.get("suite"), record.get("suite_version")) != (suite.name, suite.version):
        raise ValueError(f"it is not of {suite.name} {suite.version}, beside which it lies")
    row = parse_row(record.get("row"))
    kept = {name: public_provenance(told) for name, told in row.provenance.items()}
    row = row.model_copy(update={"provenance": kept})
    if reason := check_against(suite, row, tolerance=TOLERANCE):
        raise ValueError(reason)
    found.rows.append((suite, row))


def _is_results(path: str, suites: dict[str, Suite]) -> bool:
    parts = path.split("/")
    return len(parts) == 5 and parts[0] in suites and parts[1] == "results" and parts[4].endswith(".json")


def _bytes(path: Path) -> bytes:
    """Raises Damaged for a file that is missing, a link, or too large."""
    if path.is_symlink() or not path.is_file():
        raise Damaged("it is missing, or no plain file")
    most = MOST_MANIFEST_BYTES if path.name == MANIFEST else MOST_FILE_BYTES
    if path.stat().st_size > most:
        raise Damaged(f"it is larger than {most >> 20} MiB")
    return path.read_bytes()
