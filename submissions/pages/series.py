"""The page of a training run: its checkpoints' scores by step, as pictures and as tables."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from starlette.responses import HTMLResponse, Response

from orchestrator.board.series_picture import draw
from orchestrator.errors import NotFound
from orchestrator.series import read_runs
from submissions.context import AHub
from submissions.drawing import Form, picture
from submissions.pages.pictures import MEDIA_TYPES, SVG_ALONE
from submissions.pages.rendering import render

MOST_RUNS = 20
"""On the page; the API has all."""

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
Name = Annotated[str, Path(max_length=100)]


@router.get("/series/{name}")
def show_series(name: Name, hub: AHub) -> Response:
    with hub.reading() as session:
        runs = read_runs(session, name)
    return render("series.html", series=name, runs=runs[:MOST_RUNS], more=len(runs) - MOST_RUNS, suites=hub.suites)


@router.get("/series/{name}/picture.{form}")
def show_series_picture(
    name: Name,
    form: Form,
    hub: AHub,
    run: Annotated[str, Query(max_length=20)] = "",
    theme: Literal["", "light", "dark"] = "",
) -> Response:
    """Of one run; of the latest where none is named."""
    with hub.reading() as session:
        runs = read_runs(session, name)
    chosen = next((one for one in runs if run in ("", one.key)), None)
    if chosen is None:
        raise NotFound(f"The series has no run of that key. They are listed at /series/{name}.")
    body = picture(draw(name, chosen, dark=theme == "dark"), form)
    return Response(body, media_type=MEDIA_TYPES[form], headers=SVG_ALONE if form == "svg" else {})
