"""Which version of a suite the board shows: to a plan's new version, and back. One row is added, nothing is changed.

A reader therefore sees the one version or the other and never a mixture, and going back shows exactly what was there.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlmodel import Session, select

from orchestrator.errors import NotFound, WrongState
from orchestrator.lifecycle import RerunState
from orchestrator.reruns.coverage import Progress
from orchestrator.suite_versions import find_version, lock_suite, show, shown_before, shown_suite
from orchestrator.suites import Suite, find_suite
from orchestrator.tables import Rerun, ShownVersion

BY_COVERAGE = "coverage"
"""Who switched where a plan's goal was reached."""


class Switched(NamedTuple):
    suite: str
    before: str
    after: str


def switch(
    session: Session,
    suites: Mapping[str, Suite],
    *,
    suite: str,
    version: str,
    by: str = "",
    rerun: int | None = None,
    now: datetime,
) -> Switched:
    """Show this version of a suite from now on.

    Raises:
        NotFound, WrongState: there is no such suite or version, or it is shown already.
    """
    file = find_suite(suites, suite)
    lock_suite(session, suite)
    before = shown_suite(session, file)
    if find_version(session, suites, suite, version) is None:
        raise NotFound(f"Suite '{suite}' has no version '{version[:60]}'. `evalyard suites {suite}` lists them.")
    if before.version == version:
        raise WrongState(f"The board of '{suite}' shows version {version} already.")
    show(session, suite, version, by=by, rerun=rerun, now=now)
    return Switched(suite, before.version, version)


def switch_to_plan(
    session: Session, suites: Mapping[str, Suite], rerun: Rerun, *, by: str = "", now: datetime
) -> Switched:
    """Show the version that a plan makes.

    Raises:
        WrongState: it is still comparing, was abandoned, or its version is shown already.
    """
    if rerun.state is RerunState.ABANDONED:
        raise WrongState(
            f"Re-run {rerun.id} was abandoned: its version may hold a part of the models only. Show it all the same: "
            f"evalyard rerun switch {rerun.suite} --to {rerun.to_version}."
        )
    if rerun.started_at is None:
        raise WrongState(
            f"Nothing of re-run {rerun.id} is made yet: its version would be an empty board. "
            f"Start it first: evalyard rerun start {rerun.id}."
        )
    return switch(session, suites, suite=rerun.suite, version=rerun.to_version, by=by, rerun=rerun.id, now=now)


def back(session: Session, suites: Mapping[str, Suite], *, suite: str, by: str = "", now: datetime) -> Switched:
    """Show the version that was shown before the present one.

    Raises:
        NotFound, WrongState: there is no such suite, or nothing was shown before.
    """
    find_suite(suites, suite)
    lock_suite(session, suite)
    before = shown_before(session, suite)
    if before is None:
        raise WrongState(f"The board of '{suite}' has never shown another version: there is nothing to go back to.")
    return switch(session, suites, suite=suite, version=before, by=by, now=now)


def switch_when_covered(
    session: Session, suites: Mapping[str, Suite], rerun: Rerun, progress: Progress, *, now: datetime
) -> Switched | None:
    """Switch once the plan's goal is reached; None when it is not, or when the plan has switched once before.

    An operator who went back is not overruled.
    """
    lock_suite(session, rerun.suite)
    if not may_switch(session, suites, rerun, progress):
        return None
    show(session, rerun.suite, rerun.to_version, by=BY_COVERAGE, rerun=rerun.id, now=now)
    return Switched(rerun.suite, rerun.from_version, rerun.to_version)


def may_switch(session: Session, suites: Mapping[str, Suite], rerun: Rerun, progress: Progress) -> bool:
    """Whether a plan's goal is reached and nobody has switched by it, or away from its old version, before."""
    if rerun.coverage_goal is None or rerun.state not in (RerunState.RUNNING, RerunState.FINISHED):
        return False
    if not progress.whole or progress.coverage < rerun.coverage_goal:
        return False
    if session.exec(select(ShownVersion.id).where(ShownVersion.rerun_id == rerun.id).limit(1)).first() is not None:
        return False
    return shown_suite(session, find_suite(suites, rerun.suite)).version == rerun.from_version
