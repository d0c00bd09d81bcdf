"""The HTTP API under /api/v1: submit, follow, read. JSON in and out; errors are problem+json with a sentence.

Every answer is read from the database as it is now. The pages show the same records.
"""

import time
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, BeforeValidator, Field
from sqlalchemy import text

from orchestrator import jobs
from orchestrator.lifecycle import EvaluationState
from orchestrator.scheduling.turns import MOST_BOOST
from orchestrator.suite_versions import find_version, pick_suite, shown_suites
from orchestrator.suites import find_suite
from submissions import samples
from submissions.context import AHub, Id
from submissions.people import quota
from submissions.reading import details, evaluations, queues, suites
from submissions.receipts import KEY_CHARACTERS
from submissions.records import (
    EvaluationDetail,
    EvaluationRecord,
    Problem,
    QueueRecord,
    ReproductionRecord,
    SamplePage,
    SubmissionAnswer,
    SuiteRecord,
)
from submissions.reproduce import write_reproduction
from submissions.request import SubmissionRequest
from submissions.submitting import submit_to

VERSION = "v1"
ANY: dict[int | str, dict[str, Any]] = {
    "default": {"model": Problem, "description": "Any other error, with a sentence and what to do next."}
}
"""Of every operation."""
FOUND: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is no such thing."}}
MOVED: dict[int | str, dict[str, Any]] = FOUND | {
    409: {"model": Problem, "description": "Its present state does not allow this."},
    429: {"model": Problem, "description": "You asked too often."},
}
REFUSED: dict[int | str, dict[str, Any]] = {
    200: {"model": SubmissionAnswer, "description": "An equal evaluation is there already."},
    422: {"model": Problem, "description": "The submission has faults; all of them are listed."},
    429: {"model": Problem, "description": "You asked too often, or for too much today."},
    503: {"model": Problem, "description": "The Hub does not answer; nothing was submitted."},
}

router = APIRouter(prefix=f"/api/{VERSION}")
# A form or a script sends `type=` for no choice: nothing named is nothing filtered.
EMPTY_IS_NONE = BeforeValidator(lambda value: None if value == "" else value)


class EvaluationList(BaseModel):
    evaluations: list[EvaluationRecord]
    next_before: int | None
    """Give it as `before` to get the next page."""


class Health(BaseModel):
    ok: bool
    database_milliseconds: float
    workers_up: int


class Answer(BaseModel):
    message: str
    evaluation: EvaluationRecord


@router.post("/evaluations", status_code=201, responses=REFUSED, summary="Submit a model")
def submit(
    request: SubmissionRequest,
    hub: AHub,
    response: Response,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=KEY_CHARACTERS)] = None,
) -> SubmissionAnswer:
    """Check the model, pin its revision and queue its evaluation; or name the equal one that is there already.

    With an `Idempotency-Key` the same request within a day gets the same answer, and nothing is done twice.
    """
    submitted = submit_to(hub, request, key=idempotency_key)
    response.headers["location"] = f"/api/{VERSION}/evaluations/{submitted.answer.evaluation.id}"
    if submitted.replayed:
        response.headers["idempotency-replayed"] = "true"
    if submitted.answer.existing:
        response.status_code = 200
    return submitted.answer


@router.get("/evaluations", summary="List evaluations, the latest first")
def list_evaluations(
    hub: AHub,
    state: Annotated[EvaluationState | None, EMPTY_IS_NONE] = None,
    suite: Annotated[Annotated[str, Field(max_length=100)] | None, EMPTY_IS_NONE] = None,
    model: Annotated[Annotated[str, Field(max_length=1000)] | None, EMPTY_IS_NONE] = None,
    before: Annotated[Annotated[int, Field(ge=1, le=2**62)] | None, EMPTY_IS_NONE] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> EvaluationList:
    with hub.reading() as session:
        found = evaluations.list_evaluations(
            session, state=state, suite=suite, model=model, before=before, limit=limit + 1, policy=hub.policy
        )
    more = len(found) > limit
    return EvaluationList(evaluations=found[:limit], next_before=found[limit - 1].id if more else None)


@router.get("/evaluations/{evaluation_id}", responses=FOUND, summary="One evaluation with everything known of it")
def read_evaluation(evaluation_id: Id, hub: AHub) -> EvaluationDetail:
    with hub.reading() as session:
        detail = details.read_detail(session, evaluation_id, suites=hub.suites, policy=hub.policy)
    return detail


@router.post("/evaluations/{evaluation_id}/retry", responses=MOVED, summary="Queue again what failed")
def retry(evaluation_id: Id, hub: AHub) -> Answer:
    with hub.writing() as session:
        jobs.retry(session, evaluation_id, now := datetime.now(UTC))  # it also locks the evaluation
        quota.check_retries(session, hub.viewer, evaluation_id, now=now)
    with hub.reading() as session:
        row = evaluations.read_evaluation(session, evaluation_id)
    message = f"Queued evaluation {evaluation_id} again: what failed is done anew, and what was computed is kept."
    return Answer(message=message, evaluation=row)


@router.post("/evaluations/{evaluation_id}/cancel", responses=MOVED, summary="Stop an evaluation for good")
def cancel(evaluation_id: Id, hub: AHub) -> Answer:
    with hub.writing() as session:
        attempts = jobs.cancel(session, evaluation_id, datetime.now(UTC))
    hub.request_stops(attempts, "cancelled")
    with hub.reading() as session:
        row = evaluations.read_evaluation(session, evaluation_id)
    return Answer(message=f"Cancelled evaluation {evaluation_id}. What it had computed is kept.", evaluation=row)


@router.post("/evaluations/{evaluation_id}/boost", responses=MOVED, summary="Change an evaluation's place in the queue")
def boost(
    evaluation_id: Id,
    hub: AHub,
    days: Annotated[
        int, Query(ge=-MOST_BOOST, le=MOST_BOOST, description="By how much earlier it counts as made; 0 as it was.")
    ] = 1,
) -> Answer:
    with hub.writing() as session:
        jobs.boost(session, evaluation_id, days, datetime.now(UTC))
        row = evaluations.read_evaluation(session, evaluation_id)
    plural = "" if abs(days) == 1 else "s"
    counts = f"made {abs(days)} day{plural} {'earlier' if days > 0 else 'later'}" if days else "made when it was"
    return Answer(message=f"Evaluation {evaluation_id} counts as {counts}.", evaluation=row)


@router.get(
    "/evaluations/{evaluation_id}/reproduce", responses=FOUND, summary="lm_eval commands that make the numbers again"
)
def reproduce(evaluation_id: Id, hub: AHub) -> ReproductionRecord:
    with hub.reading() as session:
        detail = details.read_detail(session, evaluation_id, suites=hub.suites)
        suite = find_version(session, hub.suites, detail.suite, detail.suite_version)
    return write_reproduction(detail, suite)


@router.get(
    "/evaluations/{evaluation_id}/samples/{benchmark}",
    responses=FOUND,
    summary="Per-sample records as lm-eval has them",
)
def read_samples(
    evaluation_id: Id,
    benchmark: Annotated[str, Path(max_length=200)],
    hub: AHub,
    task: Annotated[Annotated[str, Field(max_length=300)] | None, EMPTY_IS_NONE] = None,
    filter: Annotated[Annotated[str, Field(max_length=300)] | None, EMPTY_IS_NONE] = None,
    right: Annotated[bool | None, EMPTY_IS_NONE] = None,
    q: Annotated[str, Query(max_length=200)] = "",
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> SamplePage:
    """Of every filter unless one is named; `right` keeps those that the counted metric calls right, or wrong, `q` those
    that hold a text."""
    with hub.reading() as session:
        key = samples.results_key(session, evaluation_id, benchmark)
        counting = suites.counting_benchmark(session, evaluation_id, benchmark, suites=hub.suites)
    page = samples.read_page(
        hub.store,
        key,
        scratch=hub.scratch,
        benchmark=counting,
        wanted=samples.Wanted(task, filter, right, q.strip()),
        offset=offset,
        limit=limit,
    )
    return SamplePage(
        evaluation=evaluation_id,
        benchmark=benchmark,
        task=page.task,
        tasks=page.tasks,
        filters=list(page.filters),
        counted=[tuple(number) for number in page.counted],
        total=page.total,
        offset=offset,
        records=page.records,
        next_offset=page.next_offset,
    )


@router.get("/queue", summary="What runs, what waits, what failed lately, and the workers")
def read_queue(hub: AHub) -> QueueRecord:
    with hub.reading() as session:
        return queues.read_queue(session, policy=hub.policy)


@router.get("/suites", summary="The suites that models can be evaluated under")
def list_suites(hub: AHub) -> list[SuiteRecord]:
    with hub.reading() as session:
        shown = shown_suites(session, hub.suites)
    return [suites.suite_record(shown[name]) for name in sorted(shown)]


@router.get("/suites/{name}", responses=FOUND, summary="One suite: benchmarks, shots, known problems")
def read_suite(
    name: Annotated[str, Path(max_length=100)],
    hub: AHub,
    version: Annotated[Annotated[str, Field(max_length=100)] | None, EMPTY_IS_NONE] = None,
) -> SuiteRecord:
    """The version that the board shows, unless another is named."""
    with hub.reading() as session:
        chosen = pick_suite(session, find_suite(hub.suites, name), version)
        versions = suites.version_records(session, chosen)
    return suites.suite_record(chosen, versions=versions)


@router.get("/health", summary="Whether the hub can do its work")
def read_health(hub: AHub) -> Health:
    started = time.perf_counter()
    with hub.reading() as session:
        session.connection().execute(text("SELECT 1"))
        taken = (time.perf_counter() - started) * 1000
        up = sum(worker.is_up for worker in queues.read_workers(session, datetime.now(UTC)))
    return Health(ok=True, database_milliseconds=round(taken, 2), workers_up=up)
