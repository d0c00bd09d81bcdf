"""The operators' page of canaries: what each build of an engine answered, with the buttons that decide of it."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import HTMLResponse, RedirectResponse, Response

from submissions import canaries as api
from submissions.context import AHub
from submissions.pages.rendering import render
from submissions.reading.canaries import read_canaries

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/canary")
def show_canary(hub: AHub) -> Response:
    with hub.reading() as session:
        return render("canary.html", found=read_canaries(session))


@router.post("/canary/run/{worker}")
def run_again(worker: Annotated[str, Path(max_length=100)], hub: AHub) -> Response:
    api.run_again(api.RunRequest(worker=worker), hub)
    return RedirectResponse("/canary", status_code=303)


@router.post("/canary/accept/{build}")
def accept(build: Annotated[str, Path(max_length=64)], hub: AHub) -> Response:
    api.accept(api.AcceptRequest(build=build), hub)
    return RedirectResponse("/canary", status_code=303)
