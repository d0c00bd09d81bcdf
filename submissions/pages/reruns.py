"""The pages of re-runs: all of them, and one with its verdicts, progress and buttons."""

from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.responses import HTMLResponse, RedirectResponse, Response

from orchestrator.reruns import plans
from orchestrator.reruns.watch import read_changes
from submissions import reruns as api
from submissions.context import AHub, Id
from submissions.languages import N_
from submissions.pages.rendering import render
from submissions.reading.reruns import rerun_detail, rerun_record

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

SAID = {
    "start": N_("It runs."),
    "pause": N_("It is paused: what runs ends, and nothing new of it is given out."),
    "resume": N_("It goes on."),
    "abandon": N_("It is abandoned. What it has made is kept."),
    "switch": N_("The board shows its version now."),
    "back": N_("The board shows what it did before."),
}


@router.get("/reruns")
def show_reruns(hub: AHub) -> Response:
    with hub.reading() as session:
        found = [rerun_record(session, plan) for plan in plans.list_plans(session)]
        changes = read_changes(session, hub.suites, now=datetime.now(UTC))
    return render("reruns.html", reruns=found, changes=changes)


@router.get("/reruns/{rerun_id}")
def show_rerun(rerun_id: Id, hub: AHub, said: str = "") -> Response:
    with hub.reading() as session:
        detail = rerun_detail(session, plans.read(session, rerun_id))
    return render("rerun.html", rerun=detail, notice=SAID.get(said, ""))


@router.post("/reruns/{rerun_id}/start")
def start(rerun_id: Id, hub: AHub) -> Response:
    api.start(rerun_id, hub)
    return _again(rerun_id, "start")


@router.post("/reruns/{rerun_id}/pause")
def pause(rerun_id: Id, hub: AHub) -> Response:
    api.pause(rerun_id, hub)
    return _again(rerun_id, "pause")


@router.post("/reruns/{rerun_id}/resume")
def resume(rerun_id: Id, hub: AHub) -> Response:
    api.resume(rerun_id, hub)
    return _again(rerun_id, "resume")


@router.post("/reruns/{rerun_id}/abandon")
def abandon(rerun_id: Id, hub: AHub) -> Response:
    api.abandon(rerun_id, hub)
    return _again(rerun_id, "abandon")


@router.post("/reruns/{rerun_id}/switch")
def switch(rerun_id: Id, hub: AHub) -> Response:
    api.switch(rerun_id, hub)
    return _again(rerun_id, "switch")


@router.post("/reruns/{rerun_id}/back")
def back(rerun_id: Id, hub: AHub) -> Response:
    with hub.reading() as session:
        suite = plans.read(session, rerun_id).suite
    api.back(suite, hub)
    return _again(rerun_id, "back")


def _again(rerun_id: int, said: str) -> Response:
    return RedirectResponse(f"/reruns/{rerun_id}?said={said}", status_code=303)
