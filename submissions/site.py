"""The web process: one site with the pages and the API. `python -m submissions.site` runs it on the loopback address.

It holds database credentials and no others; it runs nothing of a model.
"""

import logging
import sys
import threading
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

import uvicorn
from fastapi import APIRouter, Depends, FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles

from orchestrator.board.keeping import start_keeper
from orchestrator.errors import EvalyardError, NotYet
from orchestrator.settings import HubSettings, read_settings
from submissions import (
    api,
    boards,
    canaries,
    checking,
    checkpoints,
    clusters,
    comparing,
    flagging,
    operating,
    pages,
    reruns,
    voting,
)
from submissions.context import Hub, open_hub
from submissions.guard import SECURITY_HEADERS, Guard
from submissions.languages.choosing import Choose
from submissions.logs import begin_log
from submissions.pages.rendering import render
from submissions.people import operations
from submissions.people.identify import Identify
from submissions.people.permits import enforce
from submissions.people.refusals import NotSignedIn
from submissions.problems import HANDLED, ProblemResponse, describe, headers_of, problem

log = logging.getLogger(__name__)
JSON = "application/json"
DESCRIPTION = "Submit models, follow their evaluation and read the board. Errors are problem+json with a sentence."


class Site(FastAPI):
    """The application, which describes its errors as what they are: `application/problem+json`."""

    def openapi(self) -> dict[str, Any]:
        described = super().openapi()
        for operation in (one for path in described["paths"].values() for one in path.values()):
            for status, answer in operation["responses"].items():
                if (status == "default" or status >= "400") and JSON in answer["content"]:
                    answer["content"] = {ProblemResponse.media_type: answer["content"][JSON]}
        return described


def make_site(hub: Hub) -> FastAPI:
    """The application of one hub; nothing is opened here."""
    app = Site(
        title="Evalyard",
        version=api.VERSION,
        description=DESCRIPTION,
        openapi_url=f"/api/{api.VERSION}/openapi.json",
        docs_url=None,  # FastAPI's own page loads scripts from elsewhere
        redoc_url=None,
        dependencies=[Depends(enforce)],
    )
    app.state.hub = hub
    app.router.routes.extend(_routes())
    app.mount("/static", StaticFiles(directory=str(files("submissions") / "static")), name="static")
    for kind in (*HANDLED, HTTPException, Exception):
        app.add_exception_handler(kind, _answer_error)
    app.add_middleware(GZipMiddleware, minimum_size=2000, compresslevel=4)
    app.add_middleware(Identify, hub=hub)
    app.add_middleware(Choose, is_secure=hub.settings.public_url.startswith("https://"))
    app.add_middleware(Guard, public_url=hub.settings.public_url)
    return app


@cache
def _routes() -> tuple[BaseRoute, ...]:
    """The routes of every site, behind the table of permits. Made once: that takes longer than all else of a site."""
    made = APIRouter(dependencies=[Depends(enforce)], responses=api.ANY)
    for part in (
        api,
        checking,
        boards,
        flagging,
        canaries,
        operating,
        clusters,
        operations,
        voting,
        comparing,
        checkpoints,
        reruns,
        pages,
    ):
        made.include_router(part.router)
    return tuple(made.routes)


def _answer_error(request: Request, error: Exception) -> Response:
    """A problem for the API, a page with the same sentence for everyone else."""
    status, sentence, faults = describe(error)
    headers = headers_of(error, status)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        # Some are answered outside of the guard, which gives all other answers these: what nobody foresaw, and a
        # database that is away when it is asked who asks.
        headers |= SECURITY_HEADERS | {"cache-control": "no-store"}
    if request.url.path.startswith("/api/"):
        return problem(status, sentence, faults, headers=headers)
    if isinstance(error, NotSignedIn) and request.method == "GET":
        return RedirectResponse("/signin?" + urlencode({"next": _here(request)}), status_code=303)
    if isinstance(error, NotYet):
        answer = render("not_yet.html", status=status)
        answer.headers.update(headers | {"refresh": "2"})
        return answer
    answer = render("error.html", status=status, code=status, sentence=sentence)
    answer.headers.update(headers)
    return answer


def _here(request: Request) -> str:
    query = request.url.query
    return request.url.path + (f"?{query}" if query else "")


SWITCH_SECONDS = 0.0005
"""After so long a thread that computes lets others go on. Python's own 5 ms, at each of the dozens of steps of a
request, made a second of one while a large board was read."""


def serve(settings: HubSettings) -> None:
    """Run the site until it is told to stop.

    Raises:
        EvalyardError: something it needs cannot be used.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    hub, stopping = open_hub(settings), threading.Event()
    start_keeper(hub.boards, hub.engine, hub.suites, stopping=stopping)
    uvicorn.run(
        make_site(hub),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        log_config=None,  # ours leaves secrets out
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
    )
    stopping.set()


def main() -> int:
    begin_log()
    try:
        settings = read_settings()
        print(f"Evalyard's site: http://{settings.host}:{settings.port}", file=sys.stderr, flush=True)
        with suppress(KeyboardInterrupt):
            serve(settings)
    except EvalyardError as error:
        print(error.sentence, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
