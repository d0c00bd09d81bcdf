"""A model's page: everything that was evaluated of it."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import HTMLResponse, Response

from submissions.context import AHub
from submissions.pages.rendering import render
from submissions.pages.sparkline import sparkline
from submissions.reading.models import read_model

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/models/{name:path}")
def show_model(name: Annotated[str, Path(max_length=1000)], hub: AHub) -> Response:
    with hub.reading() as session:
        history = read_model(session, name)
    return render("model.html", history=history, suites=hub.suites, sparkline=sparkline)
