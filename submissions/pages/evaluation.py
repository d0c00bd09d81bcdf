"""One evaluation's page, and the buttons on it."""

from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.responses import HTMLResponse, RedirectResponse, Response

from orchestrator import votes
from orchestrator.flags import flags_by_model
from orchestrator.suite_versions import find_version
from submissions import api, voting
from submissions.context import AHub, Id
from submissions.languages import N_
from submissions.pages.rendering import render
from submissions.reading import details, evaluations
from submissions.records import EvaluationDetail
from submissions.reproduce import write_reproduction

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
NOTICES = {
    "existing": N_("An equal evaluation was there already: this is it. Nothing new was queued."),
    "retried": N_("What failed is queued again."),
    "cancelled": N_("The evaluation is cancelled. What it had computed is kept."),
}


@router.get("/evaluations/{evaluation_id}")
def show_evaluation(evaluation_id: Id, hub: AHub, existing: str = "", said: str = "") -> Response:
    with hub.reading() as session:
        detail = details.read_detail(session, evaluation_id, suites=hub.suites, policy=hub.policy)
        voted = hub.viewer.person is not None and votes.has_voted(session, detail.revision, hub.viewer.person)
        flags = flags_by_model(session, [detail.model]).get(detail.model, [])
        suite = find_version(session, hub.suites, detail.suite, detail.suite_version)
    return render(
        "evaluation.html",
        evaluation=detail,
        voted=voted,
        reproduction=write_reproduction(detail, suite),
        jobs={job.id: job for job in detail.jobs},
        notice=NOTICES.get("existing" if existing else said, ""),
        suite=suite,
        flags=[flag for flag in flags if flag.revision in (None, detail.revision)],
        again="/submit?" + urlencode(_asked_again(detail)),
    )


@router.post("/evaluations/{evaluation_id}/retry")
def retry(evaluation_id: Id, hub: AHub) -> Response:
    api.retry(evaluation_id, hub)
    return RedirectResponse(f"/evaluations/{evaluation_id}?said=retried", status_code=303)


@router.post("/evaluations/{evaluation_id}/cancel")
def cancel(evaluation_id: Id, hub: AHub) -> Response:
    api.cancel(evaluation_id, hub)
    return RedirectResponse(f"/evaluations/{evaluation_id}?said=cancelled", status_code=303)


@router.post("/evaluations/{evaluation_id}/vote")
def change_vote(evaluation_id: Id, hub: AHub) -> Response:
    """Vote, or take the vote back."""
    with hub.reading() as session:
        _, submission = evaluations.find(session, evaluation_id)
        person = hub.viewer.person
        voted = person is not None and votes.has_voted(session, submission.revision, person)
    (voting.take_back if voted else voting.vote)(evaluation_id, hub)
    return RedirectResponse(f"/evaluations/{evaluation_id}", status_code=303)


def _asked_again(detail: EvaluationDetail) -> dict[str, str]:
    """The form's fields of an equal submission, everything pinned as it was then."""
    asked = {
        "model": _submitted_name(detail.model, detail.folder),
        "revision": detail.revision,
        "suite": detail.suite,
        "model_type": detail.model_type,
        "precision": detail.precision.value,
        "chat_template": "yes" if detail.chat_template else "no",
        "limit": str(detail.limit or ""),
        "weight_type": detail.weight_type,
        "base_model": _submitted_name(detail.base_model or "", detail.base_folder),
        "base_revision": detail.base_revision or "",
    }
    return {name: value for name, value in asked.items() if value}


def _submitted_name(name: str, folder: str | None) -> str:
    """A folder goes by its last part; what the mirror has, by its name on the Hub."""
    return folder if folder and "/" not in name else name
