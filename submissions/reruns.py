"""The API of re-runs: plan, start, pause, resume, abandon, switch and back; and how far each is."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from orchestrator.reruns import plans, switching
from orchestrator.tables import Rerun
from submissions import words
from submissions.api import FOUND, MOVED, VERSION
from submissions.context import AHub, Hub, Id
from submissions.reading.reruns import RerunDetail, RerunRecord, rerun_detail, rerun_record

router = APIRouter(prefix=f"/api/{VERSION}")

Name = Annotated[str, Field(max_length=100)]
SuiteName = Annotated[str, Path(max_length=100)]


class RerunChoices(BaseModel):
    """What is left out stays as it was chosen before."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    first: Literal["rank", "votes", "age", "size"] | None = None
    """Whose turn is first: the best of the board, those with most votes, the oldest, or the smallest."""
    budget_seconds: int | None = Field(default=None, ge=0, le=10**12)
    """Device time after which no further inference begins; 0 for no limit."""
    only: list[Name] | None = Field(default=None, max_length=1000)
    """Benchmarks to do now; an empty list for all. What carries over is done anyway."""
    coverage: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Share of the old averages at which the board switches by itself; 0 leaves it to an operator."""

    def chosen(self) -> plans.Choices:
        return plans.Choices(self.first, self.budget_seconds, self.only, self.coverage)


class RerunRequest(RerunChoices):
    suite: Name
    """Whose finished evaluations are made again: those of the version that its board shows."""
    harness: Name | None = None
    """lm-eval's version, e.g. `0.4.13`; left out, the suite file's own version is the new one."""


class RerunAnswer(BaseModel):
    message: str
    rerun: RerunRecord


class SwitchAnswer(BaseModel):
    message: str
    suite: str
    before: str
    after: str


@router.get("/reruns", summary="Plans to evaluate again, the latest first")
def list_reruns(hub: AHub, suite: Annotated[str | None, Query(max_length=100)] = None) -> list[RerunRecord]:
    with hub.reading() as session:
        return [rerun_record(session, plan) for plan in plans.list_plans(session, suite=suite or None)]


@router.post("/reruns", status_code=201, responses=MOVED, summary="Plan to evaluate again with another harness")
def plan(request: RerunRequest, hub: AHub) -> RerunAnswer:
    """Nothing is evaluated before the plan is started: its sheets are made and compared, one for each class of models.

    Without `harness` the plan brings the suite file's own version onto the board.
    """
    with hub.writing() as session:
        made = plans.make_plan(
            session,
            hub.suites,
            suite=request.suite,
            harness=request.harness or None,
            choices=request.chosen(),
            by=hub.viewer.name,
            now=datetime.now(UTC),
        )
        record = rerun_record(session, made)
    message = (
        f"Made re-run {record.id}: {record.suite} from version {record.from_version} to {record.to_version}, "
        f"{words.count(record.progress.planned, 'evaluation')}. The sheets are compared now."
    )
    return RerunAnswer(message=message, rerun=record)


@router.get("/reruns/{rerun_id}", responses=FOUND, summary="One plan: verdicts, estimate, progress, failures")
def read_rerun(rerun_id: Id, hub: AHub) -> RerunDetail:
    with hub.reading() as session:
        return rerun_detail(session, plans.read(session, rerun_id))


@router.post("/reruns/{rerun_id}/start", responses=MOVED, summary="Start a plan, or let it go on with other choices")
def start(rerun_id: Id, hub: AHub, choices: RerunChoices | None = None) -> RerunAnswer:
    """Whatever is missing is taken up, with the lowest priority: new submissions go before it. Again is harmless."""
    chosen = (choices or RerunChoices()).chosen()
    return _move(
        hub,
        lambda session: plans.start(session, rerun_id, choices=chosen, now=datetime.now(UTC)),
        f"Re-run {rerun_id} runs.",
    )


@router.post("/reruns/{rerun_id}/pause", responses=MOVED, summary="Give out nothing of a plan any more")
def pause(rerun_id: Id, hub: AHub) -> RerunAnswer:
    return _move(
        hub,
        lambda session: plans.pause(session, rerun_id),
        f"Re-run {rerun_id} is paused: what runs ends, and nothing new of it is given out.",
    )


@router.post("/reruns/{rerun_id}/resume", responses=MOVED, summary="Let a paused plan go on")
def resume(rerun_id: Id, hub: AHub) -> RerunAnswer:
    return _move(
        hub, lambda session: plans.resume(session, rerun_id, now=datetime.now(UTC)), f"Re-run {rerun_id} goes on."
    )


@router.post("/reruns/{rerun_id}/abandon", responses=MOVED, summary="End a plan for good; what it has made is kept")
def abandon(rerun_id: Id, hub: AHub) -> RerunAnswer:
    with hub.writing() as session:
        ended, attempts = plans.abandon(session, rerun_id, now=datetime.now(UTC))
        record = rerun_record(session, ended)
    hub.request_stops(attempts, "the re-run was abandoned")
    return RerunAnswer(message=f"Re-run {rerun_id} is abandoned. What it has made is kept.", rerun=record)


@router.post("/reruns/{rerun_id}/switch", responses=MOVED, summary="Let the board show the version that a plan makes")
def switch(rerun_id: Id, hub: AHub) -> SwitchAnswer:
    """At once and whole: every reader sees the old version or the new one. `back` undoes it."""
    with hub.writing() as session:
        rerun = plans.read(session, rerun_id)
        found = switching.switch_to_plan(session, hub.suites, rerun, by=hub.viewer.name, now=datetime.now(UTC))
    return _switched(found)


@router.post("/suites/{name}/show", responses=MOVED, summary="Let the board show another version of a suite")
def show(name: SuiteName, hub: AHub, version: Annotated[str, Query(max_length=100)]) -> SwitchAnswer:
    with hub.writing() as session:
        found = switching.switch(
            session, hub.suites, suite=name, version=version, by=hub.viewer.name, now=datetime.now(UTC)
        )
    return _switched(found)


@router.post("/suites/{name}/back", responses=MOVED, summary="Let the board show what it showed before")
def back(name: SuiteName, hub: AHub) -> SwitchAnswer:
    """Exactly: nothing of the earlier version was changed meanwhile."""
    with hub.writing() as session:
        found = switching.back(session, hub.suites, suite=name, by=hub.viewer.name, now=datetime.now(UTC))
    return _switched(found)


def _move(hub: Hub, move: Callable[[Session], Rerun], message: str) -> RerunAnswer:
    with hub.writing() as session:
        record = rerun_record(session, move(session))
    return RerunAnswer(message=message, rerun=record)


def _switched(found: switching.Switched) -> SwitchAnswer:
    return SwitchAnswer(
        message=f"The board of {found.suite} shows version {found.after} now, instead of {found.before}.",
        suite=found.suite,
        before=found.before,
        after=found.after,
    )
