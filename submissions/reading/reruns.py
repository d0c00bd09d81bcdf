"""Plans to evaluate again, as records for the API, the pages and the command line: choices, estimate, progress."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel
from sqlmodel import Session, col, select

from orchestrator.lifecycle import EvaluationState, JobState, RerunState
from orchestrator.reruns.coverage import read_progress
from orchestrator.roster import waiting_reasons
from orchestrator.suite_versions import find_version, versions_of
from orchestrator.tables import Evaluation, Job, Rerun, RerunBenchmark, Submission, SuiteVersion
from submissions import words

MOST_FAILURES = 20


class ProgressRecord(BaseModel):
    planned: int
    """Finished evaluations of the old version."""
    made: int
    finished: int
    failed: int
    cancelled: int
    running: int
    waiting: int
    covered: int
    """Evaluations with an average under both versions."""
    to_cover: int
    """Those with an average under the old version."""
    coverage: float
    """Share of the two, 0 to 1."""
    device_seconds: float
    comparisons: int
    """Classes of sheets, one for each benchmark."""
    compared: int


class VerdictRecord(BaseModel):
    """What the plan found of one benchmark, over all classes of models."""

    benchmark: str
    evaluations: dict[str, int]
    """How many are `same`, `score`, `infer`, `incomparable`, `unknown`, or `waiting` to be compared."""
    requests: int
    """Of all classes' new sheets."""
    new_requests: int
    sentences: list[str]


class FailureRecord(BaseModel):
    evaluation: int
    model: str
    sentence: str


class RerunRecord(BaseModel):
    """One plan."""

    id: int
    suite: str
    from_version: str
    to_version: str
    from_harness: str
    to_harness: str
    state: RerunState
    sentence: str
    """Why it waits, was paused or ended."""
    next_step: str
    """The command that an operator gives next; empty where there is none."""
    is_shown: bool
    """Whether the board shows its version now."""
    coverage_goal: float | None
    first: str
    budget_seconds: int | None
    only: list[str]
    made_at: datetime
    made_by: str
    ready_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    estimate: dict[str, Any]
    progress: ProgressRecord
    summary: str
    """How far it is, in a sentence."""


class RerunDetail(RerunRecord):
    verdicts: list[VerdictRecord]
    failures: list[FailureRecord]
    """Evaluations that failed under the new version; the others went on."""


def rerun_record(session: Session, rerun: Rerun, *, now: datetime | None = None) -> RerunRecord:
    """One plan with how far it is."""
    assert rerun.id is not None
    now = now or datetime.now(UTC)
    progress = read_progress(session, rerun, now=now)
    rows = session.exec(
        select(RerunBenchmark.verdict, RerunBenchmark.facts).where(RerunBenchmark.rerun_id == rerun.id)
    ).all()
    compared = sum(1 for verdict, facts in rows if verdict or facts.get("alone"))
    before = find_version(session, {}, rerun.suite, rerun.from_version)
    after = find_version(session, {}, rerun.suite, rerun.to_version)
    is_shown = after is not None and versions_of(session, after).shown == rerun.to_version
    record = RerunRecord(
        id=rerun.id,
        suite=rerun.suite,
        from_version=rerun.from_version,
        to_version=rerun.to_version,
        from_harness=before.harness if before else "",
        to_harness=after.harness if after else "",
        state=rerun.state,
        sentence=rerun.sentence,
        next_step="",
        is_shown=is_shown,
        coverage_goal=rerun.coverage_goal,
        first=rerun.first,
        budget_seconds=rerun.budget_seconds,
        only=list(rerun.only or ()),
        made_at=rerun.made_at,
        made_by=rerun.made_by,
        ready_at=rerun.ready_at,
        started_at=rerun.started_at,
        ended_at=rerun.ended_at,
        estimate=rerun.estimate,
        progress=ProgressRecord(
            planned=progress.planned,
            made=progress.made,
            finished=progress.finished,
            failed=progress.failed,
            cancelled=progress.cancelled,
            running=progress.running,
            waiting=progress.waiting,
            covered=progress.whole,
            to_cover=progress.whole_before,
            coverage=progress.coverage,
            device_seconds=progress.device_seconds,
            comparisons=len(rows),
            compared=compared,
        ),
        summary="",
    )
    record.summary = _summary(record)
    record.next_step = _next_step(record)
    if rerun.state is RerunState.PLANNING:
        record.sentence = _waits_for(session, rerun, now=now)
    return record


def rerun_detail(session: Session, rerun: Rerun, *, now: datetime | None = None) -> RerunDetail:
    """One plan with its verdicts and what failed."""
    rows = session.exec(select(RerunBenchmark).where(RerunBenchmark.rerun_id == rerun.id)).all()
    row = session.get(SuiteVersion, (rerun.suite, rerun.to_version))
    order = [str(one["name"]) for one in row.record["benchmarks"]] if row else []
    return RerunDetail(
        **rerun_record(session, rerun, now=now).model_dump(),
        verdicts=_verdicts(rows, order),
        failures=_failures(session, rerun),
    )


def _verdicts(rows: Sequence[RerunBenchmark], order: Sequence[str]) -> list[VerdictRecord]:
    by_name: dict[str, list[RerunBenchmark]] = defaultdict(list)
    for row in rows:
        by_name[row.benchmark].append(row)
    found = []
    for name in sorted(by_name, key=lambda name: order.index(name) if name in order else len(order)):
        counted: Counter[str] = Counter()
        for row in by_name[name]:
            counted[row.verdict or "waiting"] += row.evaluations
        sentences = Counter(row.sentence for row in by_name[name] if row.sentence)
        found.append(
            VerdictRecord(
                benchmark=name,
                evaluations=dict(counted),
                requests=sum(row.requests for row in by_name[name]),
                new_requests=sum(row.new_requests for row in by_name[name]),
                sentences=[sentence for sentence, _ in sentences.most_common(3)],
            )
        )
    return found


def _failures(session: Session, rerun: Rerun) -> list[FailureRecord]:
    failed = session.exec(
        select(Evaluation.id, Submission.model, Evaluation.sentence)
        .join(Submission, col(Submission.id) == Evaluation.submission_id)
        .where(
            Evaluation.rerun_id == rerun.id,
            col(Evaluation.state).in_([EvaluationState.FAILED, EvaluationState.FINISHED]),
            col(Evaluation.sentence) != "",
        )
        .order_by(col(Evaluation.ended_at).desc())
        .limit(MOST_FAILURES)
    ).all()
    return [
        FailureRecord(evaluation=evaluation, model=model, sentence=sentence)
        for evaluation, model, sentence in failed
        if evaluation is not None
    ]


def _summary(record: RerunRecord) -> str:
    progress = record.progress
    if record.state is RerunState.PLANNING or (record.state is RerunState.PAUSED and record.ready_at is None):
        of = words.count(progress.comparisons, "comparison")
        return f"{progress.compared} of {of} made." if progress.comparisons else "Looking which sheets there are."
    covered = "no average to cover"
    if progress.to_cover:
        covered = f"{progress.covered} of {words.count(progress.to_cover, 'average')} covered"
    if record.state is RerunState.READY:
        return f"Compared; nothing is started. {covered.capitalize()}."
    parts = [f"{progress.made} of {words.count(progress.planned, 'evaluation')} taken up", covered]
    parts += [f"{progress.running} running"] if progress.running else []
    parts += [f"{progress.waiting} waiting"] if progress.waiting else []
    parts += [f"{progress.failed} failed"] if progress.failed else []
    return f"{', '.join(parts)}; devices were held for {words.duration(progress.device_seconds)}."


def _next_step(record: RerunRecord) -> str:
    match record.state:
        case RerunState.READY:
            return f"evalyard rerun start {record.id}"
        case RerunState.PAUSED:
            return f"evalyard rerun resume {record.id}"
        case RerunState.RUNNING | RerunState.FINISHED if not record.is_shown:
            return f"evalyard rerun switch {record.id}"
        case RerunState.FINISHED:
            return f"evalyard rerun report {record.id}"
    return ""


def _waits_for(session: Session, rerun: Rerun, *, now: datetime) -> str:
    """What keeps a plan from comparing, as the scheduler sees it; empty while its sheets are made."""
    rows = session.exec(
        select(Job.id, Job.state)
        .join(Evaluation, col(Evaluation.id) == Job.evaluation_id)
        .where(Evaluation.rerun_id == rerun.id, Evaluation.state == EvaluationState.PLANNED)
    ).all()
    waiting = [job for job, state in rows if state is JobState.QUEUED]
    if not waiting or any(JobState(state).is_held for _, state in rows):
        return ""
    reasons = waiting_reasons(session, now)
    because = next((reasons[job] for job in waiting if job in reasons), "")
    return f"{words.count(len(waiting), 'sheet')} to compare: {because}" if because else ""
