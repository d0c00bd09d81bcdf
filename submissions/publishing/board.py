"""What `evalyard publish` does: reads the boards as their audience sees them, and brings a place up to date with them.

Only what everybody may see is read, unless a team is named. No transaction is open while files are written or sent.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Engine
from sqlmodel import Session

from orchestrator import db
from orchestrator.artifacts import ArtifactStore, slug
from orchestrator.board import BoardRequest, Standing, Table, arrange, columns_of
from orchestrator.board.columns import Footing
from orchestrator.board.reading import read_standings
from orchestrator.errors import Refused
from orchestrator.exchange import contents, layout, paths, reading
from orchestrator.exchange.hub import HubDataset
from orchestrator.exchange.layout import File
from orchestrator.exchange.places import HUB, Folder, Place
from orchestrator.exchange.publisher import Published, publish
from orchestrator.exchange.row import Name, Revision, Row, Text
from orchestrator.rows import Progress
from orchestrator.settings import HubSettings
from orchestrator.suite_versions import confidential, shown_suites
from orchestrator.suites import Suite, find_suite
from orchestrator.visibility import Audience, restrict
from submissions import kept_samples
from submissions.languages import LANGUAGES
from submissions.publishing import static_pages
from submissions.publishing.static_pages import Listed

MOST_SAMPLE_BYTES = 512 << 20
SAMPLES = re.compile(r"samples_(.+)\.jsonl\.zst")
"""Files of a benchmark's results with one record for each document."""
NAMES = TypeAdapter(tuple[Name, Revision, Name | None, Revision | None, Text | None, Text | None])


@dataclass(frozen=True)
class Choices:
    """What of a hub is published."""

    suite: str | None = None
    """One suite alone; all that have rows or requests otherwise."""
    teams: frozenset[str] = frozenset()
    """Teams whose evaluations are published, too."""
    imported: bool = False
    """Whether rows that come from other boards are."""
    samples: bool = False
    """Whether each row's samples are, but for confidential benchmarks."""
    private: bool = False
    """Whether a repository that is made is to be private."""


@dataclass
class Boards:
    """What there is to publish."""

    files: list[File] = field(default_factory=list)
    listed: list[Listed] = field(default_factory=list)
    rows: int = 0
    left_out: list[str] = field(default_factory=list)
    """Models whose rows cannot be published as they stand."""


class Outcome(NamedTuple):
    boards: Boards
    published: Published
    revision: str
    """The commit that the Hub has now; empty for a folder."""


def publish_boards(
    settings: HubSettings,
    engine: Engine,
    suites: Mapping[str, Suite],
    destination: str,
    *,
    choices: Choices,
    check: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Bring a folder or `hf://datasets/org/name` up to date with the boards; with `check` only look.

    Raises:
        Refused, NotFound: the place is not ours to write to, or there is no such suite.
        PlaceAway: the Hub does not answer; run again, it goes on.
    """
    boards = read_boards(settings, engine, suites, choices=choices)
    place = open_place(settings, destination, private=choices.private, check=check)
    facts = {"suites": {one.suite.name: one.suite.version for one in boards.listed}}
    done = publish(place, boards.files, facts=facts, progress=progress, check=check)
    return Outcome(boards, done, place.revision if isinstance(place, HubDataset) else "")


def open_place(settings: HubSettings, destination: str, *, private: bool, check: bool) -> Place:
    """The place that a destination names.

    Raises:
        Refused: it names none, or the Hub does not let us in.
    """
    if found := HUB.fullmatch(destination):
        if settings.publish_token is None:
            raise Refused("Publishing to the Hub needs a token that may write there: set EVALYARD_PUBLISH_TOKEN.")
        token = settings.publish_token.get_secret_value()
        place = HubDataset(found[1], token=token, scratch=settings.data / "cache" / "publish" / slug(found[1]))
        place.open(make=not check, private=private)
        return place
    if "://" in destination:
        raise Refused(f"{destination[:100]!r} is no place to publish to. Name a folder, or hf://datasets/org/name.")
    return Folder(Path(destination))


def read_boards(settings: HubSettings, engine: Engine, suites: Mapping[str, Suite], *, choices: Choices) -> Boards:
    """Every file of the boards that there are, in the order in which they are to be written."""
    reader = _Reader(engine, Audience(teams=choices.teams))
    store = ArtifactStore(settings.artifacts_url, read_only=True)
    boards = Boards()
    pages: list[tuple[str, Callable[[], bytes]]] = []
    with reader.session() as session:
        if choices.suite is not None:
            suites = {choices.suite: find_suite(suites, choices.suite)}
        for name, suite in sorted(shown_suites(session, suites).items()):
            standings = [row for row in read_standings(session, suite) if choices.imported or not row.imported_from]
            good = [row for row in standings if _is_publishable(row)]
            boards.left_out += sorted(row.model for row in standings if not _is_publishable(row))
            requests = reading.read_requests(session, suite, imported=choices.imported)
            if not good and not requests and choices.suite != name:
                continue
            pages += _suite_files(
                boards, reader, store, settings, suite, good, requests, session=session, choices=choices
            )
    # Pages name each other, and come last: whoever reads one finds what it points to.
    has_parquet = any(file.path.endswith(".parquet") for file in boards.files)
    boards.files += [File(path, make) for path, make in pages]
    boards.files.append(File("README.md", lambda: static_pages.card(boards.listed, has_parquet=has_parquet)))
    for language in LANGUAGES.values():
        front = partial(static_pages.front_page, boards.listed, language=language)
        boards.files.append(File(static_pages.page_name(language), front))
    # Two names may make one path where they differ by what no path has; the first one's file stands.
    boards.files = list({file.path: file for file in reversed(boards.files)}.values())[::-1]
    return boards


def _suite_files(
    boards: Boards,
    reader: "_Reader",
    store: ArtifactStore,
    settings: HubSettings,
    suite: Suite,
    standings: Sequence[Standing],
    requests: Sequence[reading.Request],
    *,
    session: Session,
    choices: Choices,
) -> list[tuple[str, Callable[[], bytes]]]:
    """Add a suite's files to the others; its pages, which come after all of them, are returned."""
    footing = Footing(settings.device_watts, settings.carbon_grams_per_kwh)
    table = Table(suite, standings, official=settings.official)
    shown = arrange(table, BoardRequest(suite=suite.name), known=columns_of(suite, footing))
    folder = slug(suite.name)
    boards.files.append(File(f"{folder}/suite.json", lambda: layout.as_json(layout.suite_record(suite))))
    asked = layout.request_paths(suite, requests)
    for request in requests:
        boards.files.append(File(asked[request.evaluation], partial(layout.request_bytes, request)))
    results = layout.results_paths(suite, standings)
    rows = _Rows(reader, standings)
    for number, (path, _) in results.items():
        boards.files.append(File(path, partial(_results_bytes, suite, rows, number)))
    if choices.samples:
        hidden = confidential(session, suite.name) | {one.name for one in suite.benchmarks if one.confidential}
        for standing in standings:
            at = results[standing.evaluation][1]
            boards.files += _sample_files(
                session, store, suite, standing, at=at, hidden=hidden, scratch=kept_samples.folder(settings)
            )
    flat = [
        contents.contents_row(
            suite,
            line.row,
            rank=line.rank,
            footing=footing,
            official=table.is_official(line.row),
        )
        for line in (*shown.lines, *shown.apart)
    ]
    boards.files.append(File(layout.contents_path(suite, "jsonl"), lambda: contents.as_jsonl(flat)))
    if flat and (packed := contents.as_parquet(suite, flat)) is not None:
        boards.files.append(File(layout.contents_path(suite, "parquet"), lambda: packed))
    boards.rows += len(standings)
    first = shown.lines[0].row.model if shown.lines else ""
    boards.listed.append(Listed(suite, len(shown.lines), first, table.newest))
    addresses = {number: path.removeprefix(f"{folder}/") for number, (path, _) in results.items()}
    # Made at its turn, when all boards that it leads to are known.
    page = partial(static_pages.board_page, shown, results=addresses, others=boards.listed)
    return [
        (f"{folder}/{static_pages.page_name(language)}", partial(page, language=language))
        for language in LANGUAGES.values()
    ]


def _results_bytes(suite: Suite, rows: "_Rows", number: int) -> bytes | None:
    row = rows.row(number)
    return None if row is None else layout.results_bytes(suite, row)


def _sample_files(
    session: Session,
    store: ArtifactStore,
    suite: Suite,
    standing: Standing,
    *,
    at: datetime,
    hidden: frozenset[str],
    scratch: Path,
) -> Iterator[File]:
    """The samples of a row, as they are kept: a file for each task."""
    taken: set[str] = set()
    for benchmark, key in reading.results_of(session, standing.evaluation).items():
        if benchmark in hidden:
            continue
        for found in store.list(key):
            name = SAMPLES.fullmatch(found.rsplit("/", 1)[-1])
            if name is None:
                continue
            path = paths.samples_file(suite.name, standing.model, name[1], at)
            if path not in taken:  # two benchmarks may ask the same task; the first one's samples stand
                taken.add(path)
                yield File(path, partial(_sample_bytes, store, found, scratch))


def _sample_bytes(store: ArtifactStore, key: str, scratch: Path) -> bytes | None:
    """The file; None for one that is larger than a commit should be."""
    path = kept_samples.fetch(store, key, scratch)
    return path.read_bytes() if path.stat().st_size <= MOST_SAMPLE_BYTES else None


def _is_publishable(row: Standing) -> bool:
    """Whether its names can stand in a published file, and be read back."""
    told = (row.model, row.revision, row.base_model, None, row.architecture, row.licence)
    try:
        NAMES.validate_python(told)
    except ValidationError:
        return False
    return row.ended_at is not None


class _Reader:
    """Sessions that see what the audience may see."""

    def __init__(self, engine: Engine, audience: Audience) -> None:
        self._engine = engine
        self._audience = audience

    @contextmanager
    def session(self) -> Iterator[Session]:
        with db.session(self._engine, read_only=True) as opened:
            restrict(opened, self._audience)
            yield opened


class _Rows:
    """Rows with their scores, read some at a time in the order in which they are asked for."""

    def __init__(self, reader: _Reader, standings: Sequence[Standing]) -> None:
        self._reader = reader
        self._standings = sorted(standings, key=lambda row: row.evaluation)
        self._next = 0
        self._held: dict[int, Row] = {}

    def row(self, number: int) -> Row | None:
        """The row; None where its audience may no longer see it, or it cannot be published."""
        while number not in self._held and self._next < len(self._standings):
            part = self._standings[self._next : self._next + reading.BATCH]
            if part[0].evaluation > number:
                break
            self._next += len(part)
            with self._reader.session() as session:
                self._held = {standing.evaluation: row for standing, row in reading.read_rows(session, part)}
        return self._held.get(number)
