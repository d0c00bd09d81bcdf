"""The pages: board, form, evaluation, samples, queue, suites. Rendered here, readable without JavaScript.

They show the API's own records and add nothing to them. Everything that came from a stranger is escaped.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import APIRouter, Depends, Path, Query, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from orchestrator.board import View, apply_view, read_board
from orchestrator.board.view import sort_names
from orchestrator.errors import Refused
from orchestrator.program import FIRST_SUBMISSION, program
from orchestrator.suites import Suite, find_suite
from orchestrator.wire import Precision
from submissions import api, reading, sample, samples, words
from submissions.bodies import body_fields
from submissions.context import Hub, get_hub
from submissions.faults import Fault, HubAway, SubmissionRefused
from submissions.problems import fault_of
from submissions.records import EvaluationDetail, QueueRecord
from submissions.reproduce import write_reproduction
from submissions.request import ModelType, SubmissionRequest
from submissions.verdicts import counted_filter

SAMPLES_PER_PAGE = 10
MOST_FIELDS = 30

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
AHub = Annotated[Hub, Depends(get_hub)]
Id = Annotated[int, Path(ge=1, le=2**62)]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(str(files("submissions") / "templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": words.score,
        "parameters": words.parameters,
        "revision": words.revision,
        "moment": words.moment,
        "percent": words.percent,
        "event": words.event,
        "job_state": words.job_state,
        "path": lambda part: quote(str(part), safe=""),
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False, default=str),
    }
    environment.globals |= {"program": program, "first_submission": FIRST_SUBMISSION}
    return environment


TEMPLATES = _environment()


def render(name: str, *, status: int = 200, **facts: Any) -> HTMLResponse:
    now = datetime.now(UTC)
    html = TEMPLATES.get_template(name).render(now=now, ago=lambda at: words.ago(at, now), **facts)
    return HTMLResponse(html, status_code=status)


@router.get("/")
def show_board(
    request: Request,
    hub: AHub,
    suite: Annotated[str | None, Query(max_length=100)] = None,
    sort: Annotated[str, Query(max_length=100)] = "rank",
    order: str = "",
    q: Annotated[str, Query(max_length=200)] = "",
    type: Annotated[list[str], Query()] = [],  # noqa: B006  # FastAPI copies it
    precision: Annotated[list[str], Query()] = [],  # noqa: B006
    min: str = "",
    max: str = "",
    show: str = "",
) -> Response:
    view = View(
        sort=sort,
        descending=order == "down",
        search=q,
        types=frozenset(filter(None, type)),  # the form sends an empty choice for all
        precisions=frozenset(filter(None, precision)),
        smallest=_size(min),
        largest=_size(max),
    )
    with hub.reading() as session:
        counts = reading.count_by_suite(session)
        chosen = find_suite(hub.suites, suite or reading.suite_to_show(session, hub.suites))
        board = read_board(session, chosen)
        queue = reading.read_queue(session)
    given = [(name, value) for name, value in request.query_params.multi_items() if value]

    def link(**changes: str | None) -> str:
        """This board with some of the choices changed; None removes one."""
        kept = [(name, value) for name, value in given if name not in changes]
        return "/?" + urlencode(kept + [(name, value) for name, value in changes.items() if value is not None])

    return render(
        "board.html",
        whole=board,
        board=apply_view(board, view),
        view=view,
        suites=hub.suites,
        counts=counts,
        link=link,
        types=[kind.value for kind in ModelType],
        precisions=[kind.value for kind in Precision],
        sorts=sort_names(board),
        smallest=min,
        largest=max,
        raw=show == "raw",
        under_way=_under_way(queue, chosen.name, anywhere=not board.ranked),
        query=urlencode(_for_api(given, chosen.name)),
    )


@router.get("/submit")
def show_form(request: Request, hub: AHub) -> Response:
    """The form, filled with whatever of it the address names."""
    asked = {name: request.query_params.get(name, "")[:1000] for name in SubmissionRequest.model_fields}
    return _form(hub, {name: value for name, value in asked.items() if value}, faults=[])


@router.post("/submit")
async def take_form(request: Request, hub: AHub) -> Response:
    from starlette.concurrency import run_in_threadpool

    body = (await request.body()).decode("utf-8", errors="replace")
    try:
        given = dict(parse_qsl(body, max_num_fields=MOST_FIELDS))
    except ValueError as error:
        raise Refused(f"The form has more than {MOST_FIELDS} fields. Use the one at /submit.") from error
    return await run_in_threadpool(_submit, hub, given)


@router.get("/evaluations/{evaluation_id}")
def show_evaluation(evaluation_id: Id, hub: AHub, existing: str = "", said: str = "") -> Response:
    with hub.reading() as session:
        detail = reading.read_detail(session, evaluation_id, suites=hub.suites)
        detail.waiting_because = reading.waiting_because(session, detail)
    notices = {
        "existing": "An equal evaluation was there already: this is it. Nothing new was queued.",
        "retried": "What failed is queued again.",
        "cancelled": "The evaluation is cancelled. What it had computed is kept.",
    }
    return render(
        "evaluation.html",
        evaluation=detail,
        reproduction=write_reproduction(detail, hub.suites.get(detail.suite)),
        jobs={job.id: job for job in detail.jobs},
        notice=notices.get("existing" if existing else said, ""),
        suite=hub.suites.get(detail.suite),
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


@router.get("/evaluations/{evaluation_id}/samples/{benchmark}")
def show_samples(
    evaluation_id: Id,
    benchmark: Annotated[str, Path(max_length=200)],
    hub: AHub,
    task: Annotated[str, Query(max_length=300)] = "",
    filter: Annotated[str, Query(max_length=300)] = "",
    judged: Annotated[str, Query(max_length=20)] = "",
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> Response:
    right = {"right": True, "wrong": False}.get(judged)
    with hub.reading() as session:
        evaluation = reading.read_evaluation(session, evaluation_id)
        key = samples.results_key(session, evaluation_id, benchmark)
        counting = reading.counting_benchmark(session, evaluation_id, benchmark, suites=hub.suites)
    page = samples.read_page(
        hub.store,
        key,
        scratch=hub.scratch,
        benchmark=counting,
        wanted=samples.Wanted(task or None, filter or None, right, counted_only=True),
        offset=offset,
        limit=SAMPLES_PER_PAGE,
    )
    here = {"task": page.task, "filter": page.filter, "judged": None if right is None else judged}

    def link(**changes: Any) -> str:
        """These samples with some of the choices changed, from the first one on; None removes one."""
        return "?" + urlencode({name: value for name, value in (here | changes).items() if value is not None})

    return render(
        "samples.html",
        evaluation=evaluation,
        benchmark=benchmark,
        page=page,
        samples=[(sample.present(record, page.counted), record) for record in page.records],
        offset=offset,
        previous=max(0, offset - SAMPLES_PER_PAGE) if offset else None,
        right=right,
        counted_filter=counted_filter(page.counted, page.filters),
        link=link,
    )


@router.get("/queue")
def show_queue(hub: AHub) -> Response:
    with hub.reading() as session:
        queue = reading.read_queue(session)
        latest = reading.list_evaluations(session, limit=20)
    return render("queue.html", queue=queue, latest=[row for row in latest if row.state.is_final])


@router.get("/suites")
def show_suites(hub: AHub) -> Response:
    with hub.reading() as session:
        counts = reading.count_by_suite(session)
    return render("suites.html", suites=[hub.suites[name] for name in sorted(hub.suites)], counts=counts)


@router.get("/suites/{name}")
def show_suite(name: Annotated[str, Path(max_length=100)], hub: AHub) -> Response:
    return render("suite.html", suite=find_suite(hub.suites, name))


@router.get(f"/api/{api.VERSION}/docs")
def show_api(request: Request) -> Response:
    schema = request.app.openapi()
    operations = [
        (method.upper(), path, operation, body_fields(schema, operation))
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    return render("api.html", operations=operations, base=str(request.base_url).rstrip("/"))


def _submit(hub: Hub, given: dict[str, str]) -> Response:
    values = {name: value.strip() for name, value in given.items() if value.strip()}
    if "chat_template" in values and values["chat_template"] not in ("yes", "no"):
        del values["chat_template"]
    try:
        answer = api.submit_to(hub, SubmissionRequest.model_validate(values))
    except ValidationError as error:
        faults = [_form_fault(fault_of(detail)) for detail in error.errors(include_url=False)]
        return _form(hub, given, faults=faults, status=422)
    except SubmissionRefused as refused:
        return _form(hub, given, faults=list(refused.faults), status=422)
    except HubAway as error:
        return _form(hub, given, faults=[Fault("model", error.sentence)], status=503)
    target = f"/evaluations/{answer.evaluation.id}{'?existing=yes' if answer.existing else ''}"
    return RedirectResponse(target, status_code=303)


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


def _form(hub: Hub, values: Mapping[str, str], *, faults: list[Fault], status: int = 200) -> Response:
    by_field: dict[str, list[str]] = {}
    for fault in faults:
        by_field.setdefault(fault.field, []).append(fault.sentence)
    with hub.reading() as session:
        queue = reading.read_queue(session)
    fields = set(SubmissionRequest.model_fields)
    return render(
        "submit.html",
        status=status,
        values=dict(values),
        faults=by_field,
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
        return Fault("model", "Name a model: a Hub id such as org/name, or the absolute path of a folder.")
    if fault.field == "limit":
        return Fault("limit", "The limit is a whole number of documents, at least 1. Leave it empty for all.")
    return fault


def _first_suite(suites: Mapping[str, Suite]) -> str:
    """What the form has chosen already: the demo, else the smallest, so that nobody starts hours of work unawares."""
    return min(suites, key=lambda name: (name != "demo", len(suites[name].benchmarks), name), default="")


def _under_way(queue: QueueRecord, suite: str, *, anywhere: bool) -> str:
    """What comes for this board, else, with `anywhere`, what the workers are at meanwhile; empty for nothing."""
    here = words.under_way(
        sum(1 for row in queue.running if row.suite == suite), sum(1 for row in queue.waiting if row.suite == suite)
    )
    if here or not anywhere:
        return f"{here} for this board" if here else ""
    elsewhere = words.under_way(len(queue.running), len(queue.waiting))
    return f"{elsewhere} for other boards" if elsewhere else ""


def _size(text: str) -> float | None:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if 0 <= value < 1e6 else None


def _for_api(given: list[tuple[str, str]], suite: str) -> list[tuple[str, str]]:
    """The page's choices as the API's board takes them."""
    names = {"q": "search", "type": "type", "precision": "precision", "sort": "sort"}
    known = {"type": {kind.value for kind in ModelType}, "precision": {kind.value for kind in Precision}}
    found = [("suite", suite)]
    for name, value in given:
        if name in names and value in known.get(name, {value}):
            found.append((names[name], value))
        elif name in ("min", "max") and _size(value) is not None:
            found.append(("smallest" if name == "min" else "largest", str(_size(value))))
        elif name == "order" and value == "down":
            found.append(("descending", "true"))
    return found
