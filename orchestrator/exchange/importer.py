"""Imports a published board: read whole, checked against this hub's suites, then brought into the tables.

Run again it changes nothing but what has changed there. Reading holds no transaction; rows come in short ones, so that
the hub goes on working, and a run that was stopped is simply run again.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from orchestrator import db
from orchestrator.errors import Refused, WrongState
from orchestrator.exchange import lm_eval_files
from orchestrator.exchange.hub import HubDataset
from orchestrator.exchange.leaderboard import read_contents
from orchestrator.exchange.memory import at_most
from orchestrator.exchange.own import OWN, is_own, read_own
from orchestrator.exchange.places import HUB, MANIFEST
from orchestrator.exchange.sources import MOST_BYTES, Found, Refusal
from orchestrator.results import imports
from orchestrator.rows import Progress
from orchestrator.suite_versions import pick_suite, shown_suites
from orchestrator.suites import Suite, find_suite

BATCH_ROWS = 50
"""In one transaction, which keeps other writers waiting."""


@dataclass
class Imported:
    """What an import did, or with a dry run would have done."""

    address: str
    layout: str
    revision: str
    read_as: str = ""
    """What the source was taken for, in words."""
    counts: Counter[str] = field(default_factory=Counter)
    """`added`, `changed`, `unchanged`, and `own`: evaluations of this hub, which are on its board already."""
    withdrawn: list[str] = field(default_factory=list)
    """Models whose rows the source no longer has."""
    refused: list[Refusal] = field(default_factory=list)
    suites: list[str] = field(default_factory=list)
    """The suites on whose boards rows stand, with their versions."""
    withholds: str = ""
    """Why nothing was taken back though something may be gone there; empty where all was read."""


def import_board(
    engine: Engine,
    suites: Mapping[str, Suite],
    source: str,
    *,
    scratch: Path,
    token: str | None = None,
    suite: str | None = None,
    dry_run: bool = False,
    now: datetime | None = None,
    progress: Progress | None = None,
    most_memory: int | None = None,
) -> Imported:
    """Read the board at `source`, a folder or `hf://datasets/org/name`, and bring its rows into the tables.

    `most_memory`: bytes that reading it may take; by default what `orchestrator.exchange.memory` says.

    Raises:
        Refused, NotFound: there is no board there, it takes too much memory, or it is of no suite that this hub knows.
        PlaceAway: the Hub does not answer.
    """
    now, tell = now or datetime.now(UTC), progress or (lambda *_: None)
    if suite is not None:
        find_suite(suites, suite)
    with db.session(engine, read_only=True) as session:
        shown = shown_suites(session, suites)

    def find(name: str, version: str) -> Suite:
        with db.session(engine, read_only=True) as session:
            return pick_suite(session, find_suite(suites, name), version)

    if found := HUB.fullmatch(source):
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch, prefix="import-") as place:
            board = HubDataset(found[1], token=token, scratch=Path(place))
            board.open()
            folder = board.fetch(_wanted(is_own(board.files)), most_bytes=MOST_BYTES)
            address, revision = board.address, board.revision
            with at_most(most_memory):
                read = _read(folder, find, shown, only=suite, progress=tell)
    elif source.startswith("hf:"):
        raise Refused(f"{source[:100]!r} is no data set. Write it as hf://datasets/org/name.")
    else:
        folder = Path(source).expanduser().resolve()
        if not folder.exists():
            raise Refused(f"There is no {folder}. Name a folder, or hf://datasets/org/name.")
        address, revision = str(folder), ""
        with at_most(most_memory):
            read = _read(folder, find, shown, only=suite, progress=tell)
    done = Imported(address, read.layout, revision, read.read_as, refused=read.refused)
    done.suites = sorted({f"{one.name} {one.version}" for one, _ in read.rows})
    _write(engine, read, done, dry_run=dry_run, whole=suite is None, now=now, tell=tell)
    return done


def _read(
    folder: Path, find: Callable[[str, str], Suite], shown: Mapping[str, Suite], *, only: str | None, progress: Progress
) -> Found:
    if folder.is_dir() and (folder / MANIFEST).exists():
        return read_own(folder, find, only=only, progress=progress)
    if lm_eval_files.are_results(folder):
        return lm_eval_files.read_results(folder, shown, only=only, progress=progress)
    return read_contents(folder, shown, only=only, progress=progress)


def _write(
    engine: Engine, read: Found, done: Imported, *, dry_run: bool, whole: bool, now: datetime, tell: Progress
) -> None:
    kept: set[str] = set()
    for start in range(0, max(1, len(read.rows)), BATCH_ROWS):
        part = read.rows[start : start + BATCH_ROWS]
        with _session(engine, dry_run=dry_run) as session:
            source = imports.open_source(session, done.address, layout=read.layout, now=now)
            for suite, row in part:
                if read.layout == OWN and imports.is_own(session, suite, row):
                    done.counts["own"] += 1
                    continue
                kept.add(imports.row_key(source, suite, row))
                done.counts[imports.take_row(session, source, suite, row, revision=done.revision, now=now)] += 1
        tell("rows", start + len(part), len(read.rows))
    if not read.is_whole:
        done.withholds = "Nothing was taken off the board, as not all of the source could be read."
    elif not read.rows and read.layout != OWN:
        done.withholds = "Nothing was taken off the board, as the source has no row that could be taken."
    with _session(engine, dry_run=dry_run) as session:
        source = imports.open_source(session, done.address, layout=read.layout, now=now)
        if whole and not done.withholds:
            done.withdrawn = imports.take_back(session, source, kept=kept, now=now)
        source.revision, source.digest, source.read_at = done.revision, read.digest, now
        source.rows, source.refused = len(read.rows), len(read.refused)
        session.add(source)


@contextmanager
def _session(engine: Engine, *, dry_run: bool) -> Iterator[Session]:
    """A session whose changes are taken back at the end of a dry run."""
    try:
        with db.session(engine) as opened:
            yield opened
            if dry_run:
                opened.rollback()
    except IntegrityError as error:
        raise WrongState("Somebody imports the same rows at this moment. Run it again when that is done.") from error


def _wanted(own: bool) -> Callable[[str], bool]:
    """Which files of a repository are read."""
    if own:
        return lambda path: path == MANIFEST or path.endswith("/suite.json") or "/results/" in path
    return lambda path: path.endswith((".json", ".jsonl", ".parquet")) and not path.startswith(".")
