"""The page that browses samples."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query
from starlette.responses import HTMLResponse, Response

from submissions import sample, samples
from submissions.context import AHub, Id
from submissions.pages.rendering import render
from submissions.reading import evaluations, suites
from submissions.verdicts import counted_filter

SAMPLES_PER_PAGE = 10

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/evaluations/{evaluation_id}/samples/{benchmark}")
def show_samples(
    evaluation_id: Id,
    benchmark: Annotated[str, Path(max_length=200)],
    hub: AHub,
    task: Annotated[str, Query(max_length=300)] = "",
    filter: Annotated[str, Query(max_length=300)] = "",
    judged: Annotated[str, Query(max_length=20)] = "",
    q: Annotated[str, Query(max_length=200)] = "",
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> Response:
    right = {"right": True, "wrong": False}.get(judged)
    with hub.reading() as session:
        evaluation = evaluations.read_evaluation(session, evaluation_id)
        key = samples.results_key(session, evaluation_id, benchmark)
        counting = suites.counting_benchmark(session, evaluation_id, benchmark, suites=hub.suites)
    page = samples.read_page(
        hub.store,
        key,
        scratch=hub.scratch,
        benchmark=counting,
        wanted=samples.Wanted(task or None, filter or None, right, q.strip(), counted_only=True),
        offset=offset,
        limit=SAMPLES_PER_PAGE,
    )
    here = {
        "task": page.task,
        "filter": page.filter,
        "judged": None if right is None else judged,
        "q": q.strip() or None,
    }

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
        judged=None if right is None else judged,
        q=q.strip(),
        right=right,
        counted_filter=counted_filter(page.counted, page.filters),
        link=link,
    )
