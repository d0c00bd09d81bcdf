"""The page with what a re-run changed."""

from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from orchestrator.reruns import report_forms
from orchestrator.reruns.report import read_report
from submissions.context import AHub, Id
from submissions.pages.rendering import render

MOST_MODELS = 100
"""Listed on the page; the exports have all."""

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/reruns/{rerun_id}/report")
def show_report(rerun_id: Id, hub: AHub) -> Response:
    with hub.reading() as session:
        report = read_report(session, rerun_id, now=datetime.now(UTC))
    return render("rerun_report.html", report=report, models=report.models[:MOST_MODELS], forms=report_forms)
