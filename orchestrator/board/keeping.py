"""Keeps a process's boards fresh beside its readers: reads them at start, and takes in what a reader would wait for.

Readers take in a few changes by themselves, so that whoever changed something sees it at once. A thread; never writes.
"""

import gc
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from orchestrator import db
from orchestrator.board.living import Boards
from orchestrator.suite_versions import shown_suite
from orchestrator.suites import Suite

log = logging.getLogger(__name__)
PAUSE_SECONDS = 1.0
"""Between two looks, if nobody asks for one: a board that is read is never older than this and one reading."""


def start_keeper(
    boards: Boards, engine: Engine, suites: Mapping[str, Suite], *, stopping: threading.Event
) -> threading.Thread:
    """Begin to keep every suite's shown board, and whatever else is read; ends once told to stop."""
    boards.is_kept = True
    thread = threading.Thread(
        target=_keep, args=(boards, engine, suites), kwargs={"stopping": stopping}, name="boards", daemon=True
    )
    thread.start()
    return thread


def _keep(boards: Boards, engine: Engine, suites: Mapping[str, Suite], *, stopping: threading.Event) -> None:
    readings = 0
    try:
        while not stopping.is_set():
            boards.wanted.clear()
            try:
                with _nothing_collected():
                    freshen(boards, engine, suites)
                if boards.readings > readings:
                    readings = boards.readings
                    _leave_out_of_collections()
            except OperationalError as error:
                db.log_lost(log, error)
            except Exception:
                log.exception("boards_failed")
            boards.wanted.wait(PAUSE_SECONDS)
    finally:
        boards.is_kept = False


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """A large board is hundreds of thousands of objects, none of them garbage: looking for it costs a third more."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _leave_out_of_collections() -> None:
    """One that walks through ten thousand rows holds every reader up for a tenth of a second."""
    gc.collect()
    gc.freeze()


def freshen(boards: Boards, engine: Engine, suites: Mapping[str, Suite]) -> None:
    """Take in all that happened, into the boards that are in memory and those that these suites show; settle ties.

    A board that cannot be read is said in the log, and keeps no other from its readers.
    """
    with db.session(engine, read_only=True) as session:
        kept = {}
        for suite in suites.values():
            with _one_board(session, suite):
                shown = shown_suite(session, suite)
                kept[shown.name, shown.version] = shown
        kept |= {(one.name, one.version): one for one in boards.known()}
        # All boards first: readers wait for those, and not for what is known of pairs.
        for step in (boards.take_in, boards.settle_ties):
            for suite in kept.values():
                with _one_board(session, suite):
                    step(session, suite)


@contextmanager
def _one_board(session: Session, suite: Suite) -> Iterator[None]:
    """Say what goes wrong with one board, and go on with the next; but a database that is away is away for all."""
    try:
        yield
    except OperationalError:
        raise
    except Exception:
        session.rollback()  # PostgreSQL answers nothing more in a transaction in which it refused something
        log.exception("boards_failed suite=%s version=%s", suite.name, suite.version)
