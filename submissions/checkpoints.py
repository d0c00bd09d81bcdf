"""The API's view of training runs: a series of checkpoints, and whether one is worse than another."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.lifecycle import EvaluationState
from orchestrator.series import Run, read_runs
from orchestrator.wire import Precision
from submissions import gate
from submissions.api import FOUND, MOVED, VERSION
from submissions.context import AHub, Id
from submissions.gate import Verdict

router = APIRouter(prefix=f"/api/{VERSION}")
Name = Annotated[str, Path(max_length=100)]


class PointRecord(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    step: int
    evaluation: int
    model: str
    revision: str
    state: EvaluationState
    average: float | None
    benchmarks: dict[str, tuple[float, float | None]]
    """Value, 0 to 100, and standard error of each that has a score."""


class RunRecord(BaseModel):
    """Checkpoints that can be compared: of one owner, under one suite version, evaluated alike."""

    model_config = ConfigDict(from_attributes=True)

    key: str
    owner: int
    submitter: str
    suite: str
    suite_version: str
    precision: Precision
    chat_template: bool
    limit: int | None
    points: list[PointRecord]
    """By step."""


class SeriesRecord(BaseModel):
    name: str
    runs: list[RunRecord]
    """The one with the latest evaluation first."""


class ComparedRecord(BaseModel):
    """One benchmark of both, in percentage points, not normalised; paired over the documents that both have."""

    model_config = ConfigDict(from_attributes=True)

    benchmark: str
    verdict: Verdict
    sentence: str
    """Why it cannot be compared, or what was left out."""
    documents: int
    only_ours: int
    only_theirs: int
    ours: float | None
    theirs: float | None
    difference: float | None
    low: float | None
    """Of the difference's 95 % interval."""
    high: float | None
    chance: float | None
    """One-sided p of a difference this low where there is none."""
    corrected: float | None
    """The same, by Holm for all benchmarks that were compared: what is held against alpha."""


class GateRecord(BaseModel):
    evaluation: int
    baseline: int
    alpha: float
    verdict: Verdict
    """`passed` only where every benchmark could be compared and none is significantly worse."""
    sentence: str
    benchmarks: list[ComparedRecord]


@router.get("/series/{name}", responses=FOUND, summary="The checkpoints of a training run, by step")
def read_series(name: Name, hub: AHub) -> SeriesRecord:
    """Of everybody's series of this name that you may see, each apart."""
    with hub.reading() as session:
        runs: list[Run] = read_runs(session, name)
    return SeriesRecord(name=name, runs=[RunRecord.model_validate(run) for run in runs])


@router.get(
    "/evaluations/{evaluation_id}/gate", responses=MOVED, summary="Whether it is significantly worse than another one"
)
def read_gate(
    evaluation_id: Id,
    hub: AHub,
    baseline: Annotated[int, Query(ge=1, le=2**62)],
    benchmark: Annotated[list[Annotated[str, Field(max_length=200)]] | None, Query(max_length=50)] = None,
    alpha: Annotated[float, Query(gt=0, lt=0.5)] = 0.05,
) -> GateRecord:
    """Paired over stored samples, one-sided, corrected for several benchmarks. Reads all samples of both."""
    wanted = benchmark or []
    with hub.reading() as session:
        ours = gate.read_side(session, evaluation_id, known=hub.suites, wanted=wanted)
        theirs = gate.read_side(session, baseline, known=hub.suites, wanted=wanted)
    found = gate.judge(hub.store, ours, theirs, scratch=hub.scratch, wanted=wanted, alpha=alpha)
    verdict = whole(found)
    return GateRecord(
        evaluation=evaluation_id,
        baseline=baseline,
        alpha=alpha,
        verdict=verdict,
        sentence=_sentence(found, verdict, evaluation=evaluation_id, baseline=baseline),
        benchmarks=[ComparedRecord.model_validate(one) for one in found],
    )


def whole(found: list[gate.Compared]) -> Verdict:
    """The verdict on all of them: one that regressed decides, then one that is not known. Pure."""
    verdicts = {one.verdict for one in found}
    return next(one for one in (Verdict.REGRESSED, Verdict.UNKNOWN, Verdict.PASSED) if one in verdicts)


def _sentence(found: list[gate.Compared], verdict: Verdict, *, evaluation: int, baseline: int) -> str:
    named = ", ".join(one.benchmark for one in found if one.verdict is verdict)
    if verdict is Verdict.REGRESSED:
        return f"Evaluation {evaluation} is significantly worse than {baseline} in {named}."
    if verdict is Verdict.UNKNOWN:
        return f"Evaluation {evaluation} cannot be compared with {baseline} in {named}."
    return f"Evaluation {evaluation} is nowhere significantly worse than {baseline}."
