"""Boards as page and API ask for them: the suite's version picked, the table read, the request answered."""

from typing import NamedTuple

from sqlalchemy import func
from sqlmodel import Session, col, select

from orchestrator.board import BoardRequest, Shown, arrange, columns_of
from orchestrator.board.columns import Column, Footing, pick_columns
from orchestrator.board.living import FIRST_SECONDS
from orchestrator.errors import NotFound
from orchestrator.lifecycle import JobState
from orchestrator.settings import HubSettings
from orchestrator.suite_versions import pick_suite
from orchestrator.suites import Suite, find_suite
from orchestrator.tables import Evaluation, Job
from submissions.context import Hub
from submissions.reading import suites
from submissions.reading.evaluations import NOT_IN_LINE
from submissions.records import SuiteVersionRecord


def read_shown(
    hub: Hub,
    session: Session,
    asked: BoardRequest,
    *,
    page_rows: int = 0,
    apart_rows: int | None = None,
    everything: bool = False,
    patience: float = FIRST_SECONDS,
) -> Shown:
    """What the request shows, with the suite that it means named in it.

    Raises:
        NotFound: there is no such suite, version or pinned evaluation.
        NotYet: after so many seconds the board is not in memory yet, as the site has just been started.
    """
    named = find_suite(hub.suites, asked.suite or _suite_to_show(hub, session))
    suite = pick_suite(session, named, asked.version)
    asked = asked.model_copy(update={"suite": suite.name})
    table = hub.boards.read(session, suite, at=asked.at, patience=patience)
    known = columns_for(hub.settings, suite)
    if not everything and pick_columns(known, asked.cols) == pick_columns(known, ()):
        asked = asked.model_copy(update={"cols": ()})  # a form names them all: the address need not
    return arrange(table, asked, known=known, page_rows=page_rows, apart_rows=apart_rows, everything=everything)


def counts(hub: Hub, session: Session) -> dict[str, int]:
    """Finished evaluations of each suite."""
    return hub.boards.remembered(session, "finished", lambda: suites.count_by_suite(session))


def versions(hub: Hub, session: Session, suite: Suite) -> list[SuiteVersionRecord]:
    """Every version of the suite; which of them is shown is read anew."""
    name = ("versions", suite.name, *suites.shown_and_known(session, suite))
    return hub.boards.remembered(session, name, lambda: suites.version_records(session, suite))


def _suite_to_show(hub: Hub, session: Session) -> str:
    return hub.boards.remembered(session, "front", lambda: suites.suite_to_show(session, hub.suites))


def columns_for(settings: HubSettings, suite: Suite) -> dict[str, Column]:
    """Every column of a suite's board, costs by this hub's settings."""
    return columns_of(suite, Footing(settings.device_watts, settings.carbon_grams_per_kwh))


def pinned_or_refuse(shown: Shown) -> None:
    """Raises NotFound where the board has none of the pinned evaluations."""
    if not shown.pinned:
        raise NotFound("None of these evaluations is on this board. Pin some rows there, and compare them.")


class UnderWay(NamedTuple):
    """How many unfinished evaluations there are."""

    running: int
    """Of which a worker holds a job."""
    waiting: int
    is_elsewhere: bool
    """Whether they are for other boards."""


def under_way(hub: Hub, session: Session, suite: str, *, anywhere: bool) -> UnderWay | None:
    """What comes for this board, else, with `anywhere`, what the workers are at meanwhile; None for nothing."""
    counts = hub.boards.remembered(session, "under way", lambda: _count_under_way(session))
    here = counts.get(suite, (0, 0))
    if any(here):
        return UnderWay(*here, is_elsewhere=False)
    running, waiting = (sum(numbers) for numbers in zip(*counts.values(), strict=True)) if counts else (0, 0)
    return UnderWay(running, waiting, is_elsewhere=True) if anywhere and (running or waiting) else None


def _count_under_way(session: Session) -> dict[str, tuple[int, int]]:
    """By suite: unfinished evaluations of which a worker holds a job, and those of which none does."""
    held = select(Job.evaluation_id).where(col(Job.state).in_([JobState.DISPATCHED, JobState.RUNNING]))
    unfinished = col(Evaluation.state).not_in(NOT_IN_LINE)

    def counted(*more: object) -> dict[str, int]:
        statement = select(Evaluation.suite, func.count(col(Evaluation.id))).where(unfinished, *more)  # type: ignore[arg-type]
        return dict(session.exec(statement.group_by(col(Evaluation.suite))).all())

    every, running = counted(), counted(col(Evaluation.id).in_(held))
    return {suite: (running.get(suite, 0), many - running.get(suite, 0)) for suite, many in every.items()}
