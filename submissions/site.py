"""The web process: one site with the pages and the API. `python -m submissions.site` runs it on the loopback address.

It holds database credentials and no others; it runs nothing of a model.
"""

import logging
import sys
from contextlib import suppress
from importlib.resources import files

import uvicorn
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from orchestrator.errors import EvalyardError
from orchestrator.settings import HubSettings, read_settings
from submissions import api, clusters, comparing, operating, pages
from submissions.context import Hub, open_hub
from submissions.guard import Guard
from submissions.pages.rendering import render
from submissions.problems import HANDLED, describe, problem

log = logging.getLogger(__name__)
DESCRIPTION = "Submit models, follow their evaluation and read the board. Errors are problem+json with a sentence."


def make_site(hub: Hub) -> FastAPI:
    """The application of one hub; nothing is opened here."""
    app = FastAPI(
        title="Evalyard",
        version=api.VERSION,
        description=DESCRIPTION,
        openapi_url=f"/api/{api.VERSION}/openapi.json",
        docs_url=None,  # FastAPI's own page loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.hub = hub
    app.include_router(api.router)
    app.include_router(operating.router)
    app.include_router(clusters.router)
    app.include_router(comparing.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=str(files("submissions") / "static")), name="static")
    for kind in (*HANDLED, HTTPException, Exception):
        app.add_exception_handler(kind, _answer_error)
    app.add_middleware(Guard)
    return app


def _answer_error(request: Request, error: Exception) -> Response:
    """A problem for the API, a page with the same sentence for everyone else."""
    status, sentence, faults = describe(error)
    if request.url.path.startswith("/api/"):
        return problem(status, sentence, faults)
    return render("error.html", status=status, code=status, sentence=sentence)


def serve(settings: HubSettings) -> None:
    """Run the site until it is told to stop.

    Raises:
        EvalyardError: something it needs cannot be used.
    """
    app = make_site(open_hub(settings))
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
    )


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
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
