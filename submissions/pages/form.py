"""The submission form, without JavaScript: what was typed stays, and each error stands at its field."""

from collections.abc import Mapping

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response

from orchestrator.suites import Suite
from orchestrator.wire import Precision
from submissions.checking import CheckAnswer, check_for
from submissions.context import AHub, Hub
from submissions.faults import Busy, Fault, HubAway, SubmissionRefused
from submissions.findings import Outcome
from submissions.languages import gettext
from submissions.pages.fields import read_fields
from submissions.pages.rendering import render
from submissions.problems import fault_of, headers_of
from submissions.reading import queues
from submissions.request import ModelType, SubmissionRequest
from submissions.submitting import submit_to

MOST_FIELDS = 30
TOO_MANY_FIELDS = f"The form has more than {MOST_FIELDS} fields. Use the one at /submit."

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/submit")
def show_form(request: Request, hub: AHub) -> Response:
    """The form, filled with whatever of it the address names."""
    asked = {name: request.query_params.get(name, "")[:1000] for name in SubmissionRequest.model_fields}
    return _form(hub, {name: value for name, value in asked.items() if value}, faults=[])


@router.post("/submit")
async def take_form(request: Request, hub: AHub) -> Response:
    given = dict(await read_fields(request, most=MOST_FIELDS, otherwise=TOO_MANY_FIELDS))
    return await run_in_threadpool(_submit, hub, given)


@router.post("/submit/check")
async def check_form(request: Request, hub: AHub) -> Response:
    """The same form with what every check found; nothing is submitted. By the button, or while somebody types."""
    given = dict(await read_fields(request, most=MOST_FIELDS, otherwise=TOO_MANY_FIELDS))
    return await run_in_threadpool(_check, hub, given)


def _check(hub: Hub, given: dict[str, str], *, submitting: bool = False) -> Response:
    request, malformed = _read(given)
    checked, faults, status = None, list(malformed), 422 if malformed else 200
    headers: dict[str, str] = {}
    if request is not None:
        try:
            checked = check_for(hub, request)
        except (HubAway, Busy) as error:
            faults.append(Fault("model", error.sentence))
            status = 422 if malformed else 503
            headers = headers_of(error, status)
        else:
            found = (one for one in checked.findings if one.outcome is Outcome.FAULT)
            faults += [Fault(one.field, one.sentence, one.kind) for one in found]
    return _form(hub, given, faults=faults, checked=checked, status=status, headers=headers, submitting=submitting)


def _read(given: Mapping[str, str]) -> tuple[SubmissionRequest | None, list[Fault]]:
    """What is asked for but for malformed fields, and the fault of each of these: so that all faults are told at once.

    None in place of the request where what is left asks for nothing.
    """
    values = {name: value.strip() for name, value in given.items() if value.strip()}
    if "chat_template" in values and values["chat_template"] not in ("yes", "no"):
        del values["chat_template"]
    try:
        return SubmissionRequest.model_validate(values), []
    except ValidationError as error:
        faults = [_form_fault(fault_of(detail)) for detail in error.errors(include_url=False)]
    malformed = {fault.field for fault in faults}
    try:
        left = {name: value for name, value in values.items() if name not in malformed}
        return SubmissionRequest.model_validate(left), faults
    except ValidationError:
        return None, faults


def _submit(hub: Hub, given: dict[str, str]) -> Response:
    request, malformed = _read(given)
    if request is None or malformed:
        return _check(hub, given, submitting=True)
    try:
        answer = submit_to(hub, request).answer
    except SubmissionRefused as refused:
        return _form(hub, given, faults=list(refused.faults), status=422)
    except (HubAway, Busy) as error:
        return _form(hub, given, faults=[Fault("model", error.sentence)], status=503, headers=headers_of(error, 503))
    target = f"/evaluations/{answer.evaluation.id}{'?existing=yes' if answer.existing else ''}"
    return RedirectResponse(target, status_code=303)


def _form(
    hub: Hub,
    values: Mapping[str, str],
    *,
    faults: list[Fault],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    checked: CheckAnswer | None = None,
    submitting: bool = True,
) -> Response:
    by_field: dict[str, list[str]] = {}
    for fault in faults:
        by_field.setdefault(fault.field, []).append(fault.sentence)
    with hub.reading() as session:
        queue = queues.read_queue(session, policy=hub.policy)
    fields = set(SubmissionRequest.model_fields)
    return render(
        "submit.html",
        status=status,
        headers=headers,
        values=dict(values),
        faults=by_field,
        checked=checked,
        submitting=submitting,
        others=[fault.sentence for fault in faults if fault.field not in fields],
        suites=[hub.suites[name] for name in sorted(hub.suites)],
        default_suite=_first_suite(hub.suites),
        types=[kind.value for kind in ModelType],
        precisions=["auto", *(kind.value for kind in Precision)],
        queue=queue,
        engine=hub.settings.engine.value,
    )


def _form_fault(fault: Fault) -> Fault:
    """A schema's message in the form's words."""
    if fault.field == "model":
        return Fault("model", gettext("Name a model: a Hub id such as org/name, or the absolute path of a folder."))
    if fault.field == "series":
        return Fault(
            "series", "A series is named with letters, digits, dots and dashes, and begins with a letter or digit."
        )
    if fault.field == "step":
        return Fault("step", "A step is a whole number, 0 or more.")
    if fault.field == "limit":
        return Fault("limit", gettext("The limit is a whole number of documents, at least 1. Leave it empty for all."))
    return fault


def _first_suite(suites: Mapping[str, Suite]) -> str:
    """What the form has chosen already: the demo, else the smallest, so that nobody starts hours of work unawares."""
    return min(suites, key=lambda name: (name != "demo", len(suites[name].benchmarks), name), default="")
