"""The operators' page: jobs by state with why they wait or failed, and cancelling or retrying several at once."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response

from orchestrator.clusters.verdicts import cluster_verdicts
from orchestrator.errors import EvalyardError, Refused
from orchestrator.wire import FailureKind
from submissions import api
from submissions.context import AHub, Hub
from submissions.pages.fields import read_fields
from submissions.pages.rendering import render
from submissions.people.permits import NUMBER
from submissions.reading.jobs import PAGE_JOBS, Show, read_jobs
from submissions.reading.queues import read_workers

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
MOST_FIELDS = 2 * PAGE_JOBS + 10
"""Each job as one that is listed and as one that was chosen, and what was asked for."""
MOVES = {
    "cancel": (api.cancel, "evaluation"),
    "retry": (api.retry, "evaluation"),
    "retry-listed": (api.retry, "listed"),
}
"""What a button does, and to which of the form's jobs. Nothing cancels all of them: that cannot be taken back."""


@router.get("/operate")
def show_jobs(
    hub: AHub,
    show: Show = Show.QUEUED,
    failure: FailureKind | Literal[""] = "",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    done: Annotated[int | None, Query(ge=0, le=MOST_FIELDS)] = None,
    undone: Annotated[int, Query(ge=0, le=MOST_FIELDS)] = 0,
) -> Response:
    now = datetime.now(UTC)
    with hub.reading() as session:
        found = read_jobs(session, show, failure=failure or None, page=page, policy=hub.policy, now=now)
        workers = read_workers(session, now)
        clusters = cluster_verdicts(session, now)

    def link(**changes: object) -> str:
        """This list with some of the choices changed, from its first page on; None takes one away."""
        here = {"show": found.show.value, "failure": found.failure.value if found.failure else None}
        return "/operate?" + urlencode({name: value for name, value in (here | changes).items() if value is not None})

    return render(
        "operate.html",
        found=found,
        workers=workers,
        clusters=clusters,
        done=done,
        undone=undone,
        link=link,
    )


@router.post("/operate")
async def move(request: Request, hub: AHub) -> Response:
    """Cancel or retry the evaluations of the chosen jobs."""
    too_many = f"Choose at most {PAGE_JOBS} jobs at a time, on /operate."
    given = await read_fields(request, most=MOST_FIELDS, otherwise=too_many)
    verb = next((value for name, value in given if name == "do"), "")
    if verb not in MOVES:
        raise Refused("Choose what to do with them, on /operate: cancel or retry.")
    try:
        act, which = MOVES[verb]
        chosen = {NUMBER.validate_python(value) for name, value in given if name == which}
    except ValidationError as error:
        raise Refused("Choose evaluations by their numbers, on /operate.") from error
    done = await run_in_threadpool(_move, hub, act, sorted(chosen))
    here = [(name, value) for name, value in given if name in ("show", "failure", "page")]
    said = urlencode([*here, ("done", done), ("undone", len(chosen) - done)])
    return RedirectResponse(f"/operate?{said}", status_code=303)


def _move(hub: Hub, act: Callable[[int, Hub], object], evaluations: list[int]) -> int:
    """How many were moved; one that cannot be, since it has ended meanwhile, stops none of the others."""
    done = 0
    for evaluation in evaluations:
        try:
            act(evaluation, hub)
        except EvalyardError:
            continue
        done += 1
    return done
