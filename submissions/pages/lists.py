"""Pages that list: the queue, the suites, the operations of the API."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import HTMLResponse, Response

from orchestrator.clusters.verdicts import cluster_verdicts
from orchestrator.suite_versions import pick_suite, shown_suites
from orchestrator.suites import find_suite
from submissions import api
from submissions.bodies import body_fields
from submissions.context import AHub
from submissions.pages.rendering import may_operate, render
from submissions.reading import evaluations, queues, suites
from submissions.reading.canaries import canary_line

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/queue")
def show_queue(hub: AHub) -> Response:
    with hub.reading() as session:
        queue = queues.read_queue(session, policy=hub.policy)
        latest = evaluations.list_evaluations(session, limit=20, policy=hub.policy)
        # As in the API, for operators alone: it quotes what schedulers say of hosts, accounts and partitions.
        launching = cluster_verdicts(session, datetime.now(UTC)) if may_operate() else []
        canary = canary_line(session) if may_operate() else ""
    return render(
        "queue.html",
        queue=queue,
        clusters=launching,
        canary=canary,
        latest=[row for row in latest if row.state.is_final],
    )


@router.get("/suites")
def show_suites(hub: AHub) -> Response:
    with hub.reading() as session:
        counts = suites.count_by_suite(session)
        shown = shown_suites(session, hub.suites)
    return render("suites.html", suites=[shown[name] for name in sorted(shown)], counts=counts)


@router.get("/suites/{name}")
def show_suite(
    name: Annotated[str, Path(max_length=100)], hub: AHub, version: Annotated[str, Query(max_length=100)] = ""
) -> Response:
    with hub.reading() as session:
        suite = pick_suite(session, find_suite(hub.suites, name), version)
        versions = suites.version_records(session, suite)
    return render("suite.html", suite=suite, versions=versions)


@router.get(f"/api/{api.VERSION}/docs")
def show_api(request: Request) -> Response:
    schema = request.app.openapi()
    operations = [
        (method.upper(), path, operation, body_fields(schema, operation))
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    return render("api.html", operations=operations, base=str(request.base_url).rstrip("/"))
