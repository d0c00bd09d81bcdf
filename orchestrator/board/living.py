"""Boards kept in memory and brought up to date by what happened since: a page reads events, and only changed rows.

Every change of an evaluation is an event of the same transaction, so the events say which rows to read again. Numbers
of events are given before a transaction commits: one that is missing may belong to a transaction under way, and is
asked for again until it is there, or too old to come.

Where a keeper runs (`orchestrator.board.keeping`), readers take in a few changes by themselves and leave many to it:
meanwhile they see the board as it was before them.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy import func, or_
from sqlmodel import Session, col, select

from orchestrator.board.pairs import Comparing, Pairs
from orchestrator.board.reading import read_standings
from orchestrator.board.standings import Standing
from orchestrator.board.table import Table
from orchestrator.errors import NotYet
from orchestrator.suites import Suite
from orchestrator.tables import Event
from orchestrator.visibility import EVERYTHING, Audience, audience_of, unrestricted

GAP_SECONDS = 600.0
"""How long a missing event is waited for; no transaction lives so long."""
LOOK_BACK = 1000
"""Events before the newest among which missing ones are looked for when a board is first read."""
MOST_CHANGES = 2000
"""Evaluations: with more changes the whole board is read anew."""
MOST_TABLES = 64
"""For audiences; each holds no rows of its own, only their order."""
MOST_MOMENTS = 4
"""Tables of past moments beside those: a reader may name as many moments as there are."""
MOST_MISSING = 5000
MOST_BY_READERS = 50
"""Changed evaluations that a reader takes in where a keeper runs: milliseconds."""
PATIENCE_SECONDS = 0.5
"""How long a reader waits while another thread takes changes in; then the board as it was before them will do."""
FIRST_SECONDS = 10.0
"""How long a reader waits for a board that the keeper has not read yet, unless it says otherwise; it holds a thread."""
MOST_WAITING = 8
"""Readers who wait for boards at a time; more are told at once to ask again. Each holds a thread and a connection to
the database, and the keeper, whom they wait for, needs a connection too."""
REMEMBERED_SECONDS = 10.0
KEPT_SECONDS = 3.0
"""Age of a count that is still shown where a keeper runs, whatever happened since: a busy hub writes many events."""
NOT_READ = (
    "The board is being read from the database, as this site has just been started. Ask again in a few seconds; where "
    "it never comes, the web process's log says why."
)
NEWEST = "evalyard_newest_event"

T = TypeVar("T")


class Seen(NamedTuple):
    """Who reads, of which moment; None is now."""

    audience: Audience = EVERYTHING
    at: datetime | None = None

    def sees(self, row: Standing) -> bool:
        if self.at is not None and (row.ended_at is None or row.ended_at > self.at):
            return False
        return self.audience.sees(row.visibility, team=row.team, person=row.person)


class _Living:
    """One suite version, whole, and as some see it."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.taking_in = threading.Lock()
        """Held while rows are read."""
        self.making = threading.Lock()
        """Held while a table is made for an audience."""
        self.lock = threading.Lock()
        """Held while tables are looked up or put in each other's place: never for long."""
        self.is_read = threading.Event()
        """Set once there is a table."""
        self.last = -1
        """Number of the newest event that was taken in; -1 before the first reading."""
        self.missing: dict[int, float] = {}
        """Numbers of events that were not there, and since when on this process's clock."""
        self.whole = Table(suite)
        self.seen: OrderedDict[Seen, Table | None] = OrderedDict()
        """None for those who see everything that there is."""


class Boards:
    """Every board that was asked for in this process; safe to use from several threads."""

    def __init__(self, *, official: frozenset[str] = frozenset(), clock: Callable[[], float] = time.monotonic) -> None:
        self._official = official
        self._clock = clock
        self._lock = threading.Lock()
        self._living: dict[tuple[str, str], _Living] = {}
        self._remembered: OrderedDict[Hashable, tuple[int, float, Any]] = OrderedDict()
        self._pairs = Pairs()
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self.is_kept = False
        """Whether a keeper runs."""
        self.readings = 0
        """How often a whole board was read."""
        self.wanted = threading.Event()
        """Set where there is something for the keeper to take in."""

    def read(
        self,
        session: Session,
        suite: Suite,
        *,
        at: datetime | None = None,
        take_in_all: bool = False,
        patience: float = FIRST_SECONDS,
    ) -> Table:
        """The board as it is in the session's transaction, or later, for whoever the session is narrowed to.

        With a keeper it may lack changes that are being taken in; with `take_in_all` it never does. A board that is
        not in memory yet is the keeper's to read.

        Raises:
            NotYet: the keeper has not read it after so many seconds, or too many readers wait already.
        """
        with self._lock:
            living = self._living.get((suite.name, suite.version))
            if living is None or (living.suite is not suite and living.suite != suite):
                living = self._living[suite.name, suite.version] = _Living(suite)
        if self.is_kept and not take_in_all and not living.is_read.is_set():
            self.wanted.set()
            self._wait(living, patience)
        if self._newest(session) > living.last or living.missing:
            self._bring_up_to_date(session, living, take_in_all=take_in_all or not self.is_kept)
        table = self._as_seen(living, Seen(audience_of(session), at))
        if not self.is_kept:
            self._settle(session, table)
        return table

    def take_in(self, session: Session, suite: Suite) -> None:
        """Take in all that happened, reading the board where it is not in memory: for the keeper."""
        self.read(session, suite, take_in_all=True)

    def _wait(self, living: _Living, patience: float) -> None:
        if not self._waiting.acquire(blocking=False):
            raise NotYet(NOT_READ)
        try:
            if not living.is_read.wait(patience):
                raise NotYet(NOT_READ)
        finally:
            self._waiting.release()

    def settle_ties(self, session: Session, suite: Suite) -> None:
        """Compare what the ties of this board need, as everybody sees it who reads it: for the keeper."""
        with self._lock:
            living = self._living[suite.name, suite.version]
        with living.lock:
            tables = [living.whole, *(table for table in living.seen.values() if table is not None)]
        for table in tables:
            self._settle(session, table)

    def _settle(self, session: Session, table: Table) -> None:
        if not table.ties.is_settled:
            with unrestricted(session):
                table.settle_ties(Comparing(session, self._pairs, table.following).compare)

    def known(self) -> list[Suite]:
        """The suites, each in one version, whose boards are in memory."""
        with self._lock:
            return [living.suite for living in self._living.values()]

    def remembered(self, session: Session, name: Hashable, make: Callable[[], T]) -> T:
        """What `make` read when the last event was written, for whom the session is narrowed to.

        For counts of evaluations and jobs, whose every change is an event. Where events commit out of their order, a
        count may be old until the next one, or for some seconds; where a keeper runs, for `KEPT_SECONDS`.
        """
        newest, key, now = self._newest(session), (name, audience_of(session)), self._clock()
        with self._lock:
            found = self._remembered.get(key)
        if found is not None:
            age = now - found[1]
            if age < (REMEMBERED_SECONDS if found[0] == newest else KEPT_SECONDS if self.is_kept else 0.0):
                return cast(T, found[2])
        value = make()
        with self._lock:
            self._remembered[key] = newest, now, value
            while len(self._remembered) > MOST_TABLES:
                self._remembered.popitem(last=False)
        return value

    def _as_seen(self, living: _Living, seen: Seen) -> Table:
        found = self._table_of(living, seen)
        if found is not None:
            return found
        with living.making:
            found = self._table_of(living, seen)
            if found is not None:
                return found  # another reader of the same audience was first
            whole = living.whole
            rows = [row for row in whole.rows if row is not None]
            mine = [row for row in rows if seen.sees(row)]
            # Where nothing is hidden, as on most sites, everybody shares the whole table until something is.
            table = self._table(living.suite, mine) if len(mine) < len(rows) else None
            with living.lock:
                if living.whole is whole:
                    self._keep(living, seen, table)
            return whole if table is None else table

    def _table_of(self, living: _Living, seen: Seen) -> Table | None:
        with living.lock:
            if seen == Seen():
                return living.whole
            if seen not in living.seen:
                return None
            living.seen.move_to_end(seen)
            table = living.seen[seen]
            return living.whole if table is None else table

    def _keep(self, living: _Living, seen: Seen, table: Table | None) -> None:
        living.seen[seen] = table
        for kind, most in ((False, MOST_TABLES), (True, MOST_MOMENTS)):
            those = [one for one in living.seen if (one.at is not None) is kind]
            for oldest in those[: max(0, len(those) - most)]:
                del living.seen[oldest]

    def _newest(self, session: Session) -> int:
        """Number of the newest event that the session's transaction sees; asked for once."""
        found = session.info.get(NEWEST)
        if found is None:
            with unrestricted(session):
                found = session.info[NEWEST] = session.exec(select(func.max(Event.id))).one() or 0
        assert isinstance(found, int)
        return found

    def _bring_up_to_date(self, session: Session, living: _Living, *, take_in_all: bool) -> None:
        patience = -1 if take_in_all or living.last < 0 else PATIENCE_SECONDS
        if not living.taking_in.acquire(timeout=patience):
            return
        try:
            with unrestricted(session):
                if living.last < 0:
                    self._load(session, living)
                else:
                    self._catch_up(session, living, most=None if take_in_all else MOST_BY_READERS)
        finally:
            living.taking_in.release()

    def _load(self, session: Session, living: _Living) -> None:
        # Events first: what happens between the two readings is then read twice, and nothing is left out.
        newest = session.exec(select(func.max(Event.id))).one() or 0
        since = max(0, newest - LOOK_BACK)
        there = set(session.exec(select(Event.id).where(col(Event.id) > since)).all())
        whole = self._table(living.suite, read_standings(session, living.suite))
        whole.by_rank()
        self._note_missing(living, there, since, newest)
        with living.lock:
            living.whole = whole
            living.seen.clear()
            living.last = newest
        self.readings += 1
        living.is_read.set()

    def _catch_up(self, session: Session, living: _Living, *, most: int | None) -> None:
        """Take in what happened since; nothing where more than so many evaluations changed, which is the keeper's."""
        now = self._clock()
        living.missing = {one: since for one, since in living.missing.items() if now - since < GAP_SECONDS}
        new = col(Event.id) > living.last
        if living.missing:
            new = or_(new, col(Event.id).in_(living.missing))
        found = session.exec(select(Event.id, Event.evaluation_id).where(new)).all()
        if not found:
            return
        numbers = {number for number, _ in found if number is not None}
        changed = {evaluation for _, evaluation in found if evaluation is not None}
        if most is not None and len(changed) > most:
            self.wanted.set()
            return
        if len(changed) > MOST_CHANGES or len(living.missing) > MOST_MISSING:
            self._load(session, living)
            return
        newest = max(living.last, *numbers)
        rows = {row.evaluation: row for row in read_standings(session, living.suite, only=changed)}
        changes = {one: rows.get(one) for one in changed if one in rows or living.whole.row(one) is not None}
        whole = living.whole.changed(changes) if changes else living.whole
        with living.lock:
            before = dict(living.seen) if changes else {}
        after: dict[Seen, Table | None] = {}
        for seen, table in before.items():
            mine = {one: row if row is not None and seen.sees(row) else None for one, row in changes.items()}
            if table is not None:
                after[seen] = table.changed(mine)
            elif mine == changes:
                after[seen] = None
        # Only now, so that a reading that failed is done again.
        for number in numbers:
            living.missing.pop(number, None)
        self._note_missing(living, numbers, living.last, newest)
        with living.lock:
            living.whole, living.last = whole, newest
            for seen, table in list(living.seen.items()) if changes else ():
                if seen in after and before[seen] is table:
                    living.seen[seen] = after[seen]
                else:
                    del living.seen[seen]

    def _note_missing(self, living: _Living, there: set[int] | set[int | None], since: int, newest: int) -> None:
        now = self._clock()
        for number in range(max(since, newest - MOST_MISSING) + 1, newest + 1):
            if number not in there:
                living.missing.setdefault(number, now)

    def _table(self, suite: Suite, rows: Iterable[Standing]) -> Table:
        return Table(suite, rows, official=self._official, known=self._pairs.known)
