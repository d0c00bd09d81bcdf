"""The API's view of what changed: two evaluations sample by sample, a re-run's report, and what asks for a re-run."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, PlainTextResponse, Response

from orchestrator.reruns.report import read_report
from orchestrator.reruns.report_forms import as_csv, as_markdown, as_record
from orchestrator.reruns.watch import read_changes
from orchestrator.statistics import Estimate
from submissions.api import EMPTY_IS_NONE, FOUND, VERSION
from submissions.context import AHub, Hub, Id
from submissions.diff import Asked, DiffPage, Side, read_diff, read_side
from submissions.records import EvaluationRecord

router = APIRouter(prefix=f"/api/{VERSION}")
REPORT: dict[int | str, dict[str, Any]] = FOUND | {200: {"content": {"text/markdown": {}, "text/csv": {}}}}

Number = Annotated[int, Query(ge=1, le=2**62)]
Named = Annotated[Annotated[str, Field(max_length=300)] | None, EMPTY_IS_NONE]


class EstimateRecord(BaseModel):
    value: float
    stderr: float | None


class PairRecord(BaseModel):
    document: str
    asked_otherwise: bool
    """The prompt, a continuation or a generation argument differs."""
    answered_otherwise: bool
    judged_otherwise: bool
    right: tuple[bool | None, bool | None]
    a: dict[str, Any]
    """As lm-eval wrote it."""
    b: dict[str, Any]


class DiffRecord(BaseModel):
    """Paired statistics of one task, over the documents that both evaluations have, and a page of its pairs."""

    a: EvaluationRecord
    b: EvaluationRecord
    benchmark: str
    task: str
    tasks: dict[str, float | None]
    """Tasks that both have, with how far the counted score moved, 0 to 1; the farthest first."""
    filters: list[str]
    documents: int
    only_a: int
    """Documents that b has not."""
    only_b: int
    by_kind: dict[str, int]
    """Pairs of each kind of change."""
    both_right: int
    only_a_right: int
    only_b_right: int
    both_wrong: int
    mcnemar_p: float | None
    """Two-sided, exact; None where the counted number is no plain right or wrong."""
    mean_a: EstimateRecord | None
    mean_b: EstimateRecord | None
    difference: EstimateRecord | None
    """Of b less a, document by document."""
    difference_low: float | None
    """Of the 95 % interval."""
    difference_high: float | None
    kind: str
    total: int
    """Pairs of this kind."""
    offset: int
    pairs: list[PairRecord]
    next_offset: int | None


def read_sides(hub: Hub, a: int, b: int, *, benchmark: str) -> tuple[Side, Side]:
    """Both evaluations, from the database."""
    with hub.reading() as session:
        first = read_side(session, a, benchmark, known=hub.suites)
        return first, read_side(session, b, benchmark, known=hub.suites)


@router.get("/diff", responses=FOUND, summary="Two evaluations of a benchmark, sample by sample")
def read_difference(
    hub: AHub,
    a: Number,
    b: Number,
    benchmark: Annotated[str, Query(max_length=200)],
    task: Named = None,
    filter: Named = None,
    kind: Annotated[Literal["judged", "better", "worse", "answered", "asked", "all"] | None, EMPTY_IS_NONE] = None,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> DiffRecord:
    """Without `kind` those judged otherwise, else answered otherwise; without `filter` what each suite counts."""
    sides = read_sides(hub, a, b, benchmark=benchmark)
    page = read_diff(
        hub.store, *sides, scratch=hub.scratch, asked=Asked(task, filter, kind), offset=offset, limit=limit
    )
    return _record(page, sides, benchmark=benchmark, offset=offset)


@router.get("/reruns/{rerun_id}/report", responses=REPORT, summary="What a re-run changed, as JSON, Markdown or CSV")
def read_rerun_report(rerun_id: Id, hub: AHub, format: Literal["json", "md", "csv"] = "json") -> Response:
    with hub.reading() as session:
        report = read_report(session, rerun_id, now=datetime.now(UTC))
    if format == "json":
        return JSONResponse(as_record(report))
    disposition = {"content-disposition": f'attachment; filename="rerun-{rerun_id}.{format}"'}
    if format == "md":
        return PlainTextResponse(as_markdown(report), media_type="text/markdown", headers=disposition)
    return PlainTextResponse(as_csv(report), media_type="text/csv", headers=disposition)


class ChangeRecord(BaseModel):
    """Something that scores depend on, and that no plan answers."""

    kind: str
    """`harness`, `suite`, `dataset` or `engine`."""
    suite: str
    sentence: str
    next_step: str


@router.get("/changes", summary="What changed that scores depend on and no plan answers yet")
def list_changes(hub: AHub, suite: Annotated[str | None, Query(max_length=100)] = None) -> list[ChangeRecord]:
    with hub.reading() as session:
        found = read_changes(session, hub.suites, now=datetime.now(UTC))
    return [
        ChangeRecord(kind=one.kind.value, suite=one.suite, sentence=one.sentence, next_step=one.next_step)
        for one in found
        if suite in (None, one.suite)
    ]


def _record(page: DiffPage, sides: tuple[Side, Side], *, benchmark: str, offset: int) -> DiffRecord:
    found = page.comparison
    return DiffRecord(
        a=sides[0].evaluation,
        b=sides[1].evaluation,
        benchmark=benchmark,
        task=page.task,
        tasks=dict(page.tasks),
        filters=list(page.filters),
        documents=found.documents,
        only_a=page.only_a,
        only_b=page.only_b,
        by_kind=dict(found.by_kind),
        both_right=found.both_right,
        only_a_right=found.only_a_right,
        only_b_right=found.only_b_right,
        both_wrong=found.both_wrong,
        mcnemar_p=found.mcnemar_p,
        mean_a=_estimate(found.mean_a),
        mean_b=_estimate(found.mean_b),
        difference=_estimate(found.difference),
        difference_low=found.low,
        difference_high=found.high,
        kind=page.kind,
        total=page.total,
        offset=offset,
        pairs=[
            PairRecord(
                document=pair.a.document,
                asked_otherwise=pair.asked_otherwise,
                answered_otherwise=pair.answered_otherwise,
                judged_otherwise=pair.judged_otherwise,
                right=(pair.a.is_right, pair.b.is_right),
                a=a,
                b=b,
            )
            for pair, a, b in page.pairs
        ],
        next_offset=page.next_offset,
    )


def _estimate(found: Estimate | None) -> EstimateRecord | None:
    return EstimateRecord(value=found.value, stderr=found.stderr) if found else None
