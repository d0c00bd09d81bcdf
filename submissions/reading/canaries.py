"""Canaries and their runs as pages, API and command line show them."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict
from sqlmodel import Session, col, select

from orchestrator.canaries.admission import read_admission
from orchestrator.canaries.builds import Entry, engine_name, in_words
from orchestrator.canaries.drift import Drift, described
from orchestrator.lifecycle import CanaryRunState, CanaryState, JobState
from orchestrator.roster import waiting_reasons
from orchestrator.tables import Canary, CanaryRun, Evaluation, Job, Submission, Worker
from orchestrator.visibility import unrestricted
from orchestrator.wire import Stage
from submissions import words

MOST_RUNS = 200
WORKER_IS_UP_FOR = timedelta(seconds=30)


class _Record(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class CanaryRunRecord(_Record):
    """A canary on one build of an engine."""

    id: int
    build: str
    """What operators call the build."""
    engine: str
    what: str
    """The build in words: engine, runtime, device, driver."""
    state: CanaryRunState
    counts: bool
    """Whether this is the build's last word: its workers may work if it passed or was accepted."""
    workers: list[str]
    """Workers of the build that are up."""
    worker: str
    """Who answered."""
    drift: Drift | None
    text: str
    """The drift in words; what it waits for; or why there is none."""
    sentence: str
    made_at: datetime
    made_by: str
    ended_at: datetime | None


class CanaryRecord(_Record):
    """A finished evaluation whose model is pinned, with a sample of its requests and their stored answers."""

    id: int
    evaluation: int
    model: str
    engine: str
    device_type: str
    state: CanaryState
    asked: int
    requests: int
    documents: int
    texts: int
    """Documents whose answer is a text."""
    reference: list[str]
    """What computed the stored answers."""
    sentence: str
    set_at: datetime
    set_by: str
    ended_at: datetime | None
    ended_by: str
    runs: list[CanaryRunRecord]
    """The latest first."""

    @property
    def is_open(self) -> bool:
        return self.ended_at is None

    @property
    def summary(self) -> str:
        if not self.requests:
            return "Its sample is being taken." if self.state is CanaryState.SAMPLING else self.sentence
        told = words.count(self.requests, "request")
        return f"{told} of {words.count(self.documents, 'document')}, {words.count(self.texts, 'text')} to generate."


class CanariesRecord(_Record):
    canaries: list[CanaryRecord]
    """Present ones first, then those that have ended, the latest first."""
    kept_out: list[str]
    """Workers that are up and get nothing but the canary."""


def canary_line(session: Session, *, now: datetime | None = None) -> str:
    """Whether a canary watches, and whom it holds, in a sentence."""
    now = now or datetime.now(UTC)
    admission = read_admission(session)
    if not admission.present:
        return "No canary is set: new engine versions and drivers get work at once."
    up = [
        worker
        for worker in session.exec(select(Worker).where(Worker.kind == "engine").order_by(col(Worker.name)))
        if now - worker.last_heartbeat < WORKER_IS_UP_FOR
    ]
    held = [worker.name for worker in up if admission.of(worker) is not Entry.OPEN]
    if held:
        return f"The canary holds {', '.join(held)}."
    return "Every engine worker that is up has passed the canary, or has none."


def read_canaries(session: Session, *, now: datetime | None = None, ended: int = 5) -> CanariesRecord:
    """Every canary that counts, and the last few of those that have ended."""
    now = now or datetime.now(UTC)
    rows = list(session.exec(select(Canary).where(col(Canary.ended_at).is_(None)).order_by(col(Canary.id))))
    past = select(Canary).where(col(Canary.ended_at).is_not(None)).order_by(col(Canary.id).desc()).limit(ended)
    rows += session.exec(past).all()
    workers = session.exec(select(Worker).where(Worker.kind == "engine").order_by(col(Worker.name))).all()
    up: dict[str, list[str]] = defaultdict(list)
    for worker in workers:
        if now - worker.last_heartbeat < WORKER_IS_UP_FOR:
            up[worker.build].append(worker.name)
    records = [_record(session, row, up=up, now=now) for row in rows]
    return CanariesRecord(
        canaries=records,
        kept_out=sorted(
            name
            for record in records
            if record.state is CanaryState.PRESENT
            for run in record.runs
            if run.counts and run.state not in (CanaryRunState.PASSED, CanaryRunState.ACCEPTED)
            for name in run.workers
        ),
    )


def _record(session: Session, row: Canary, *, up: dict[str, list[str]], now: datetime) -> CanaryRecord:
    runs = session.exec(
        select(CanaryRun, Job)
        .join(Job, col(Job.id) == CanaryRun.job_id, isouter=True)
        .where(CanaryRun.canary_id == row.id)
        .order_by(col(CanaryRun.id).desc())
        .limit(MOST_RUNS)
    ).all()
    model = session.exec(
        select(Submission.model)
        .join(Evaluation, col(Evaluation.submission_id) == Submission.id)
        .where(Evaluation.id == row.evaluation_id)
    ).first()
    queued = any(job is not None and job.state is JobState.QUEUED for _, job in runs)
    reasons: dict[int, str] = {}
    if queued:
        with unrestricted(session):
            reasons = waiting_reasons(session, now, stages=(Stage.CANARY,))
    last: dict[str, int] = {}
    for run, _ in runs:
        # The newest that has ended; where none has, the one that waits.
        if run.state not in (CanaryRunState.WAITING, CanaryRunState.ABANDONED):
            last.setdefault(run.build, run.id or 0)
    for run, _ in runs:
        if run.state is CanaryRunState.WAITING:
            last.setdefault(run.build, run.id or 0)
    engines = row.reference.get("engines", [])
    return CanaryRecord(
        id=row.id or 0,
        evaluation=row.evaluation_id,
        model=model or "a model that you may not see",
        engine=row.engine.value,
        device_type=row.device_type,
        state=row.state,
        asked=row.asked,
        requests=row.requests,
        documents=int(row.reference.get("documents", 0)),
        texts=int(row.reference.get("texts", 0)),
        reference=[in_words(one) for one in engines],
        sentence=row.sentence,
        set_at=row.set_at,
        set_by=row.set_by,
        ended_at=row.ended_at,
        ended_by=row.ended_by,
        runs=[
            _run_record(run, job, counts=last.get(run.build) == run.id, workers=up.get(run.build, []), reasons=reasons)
            for run, job in runs
        ],
    )


def _run_record(
    run: CanaryRun, job: Job | None, *, counts: bool, workers: list[str], reasons: dict[int, str]
) -> CanaryRunRecord:
    drift = Drift(**run.drift) if run.drift else None
    return CanaryRunRecord(
        id=run.id or 0,
        build=run.build,
        engine=engine_name(run.facts),
        what=in_words(run.facts),
        state=run.state,
        counts=counts,
        workers=workers,
        worker=run.worker,
        drift=drift,
        text=described(drift) if drift is not None else _in_words(run, job, reasons),
        sentence=run.sentence,
        made_at=run.made_at,
        made_by=run.made_by,
        ended_at=run.ended_at,
    )


def _in_words(run: CanaryRun, job: Job | None, reasons: dict[int, str]) -> str:
    if run.state is not CanaryRunState.WAITING or job is None:
        return run.sentence
    if job.state is JobState.QUEUED:
        return reasons.get(job.id or 0, "") or "Waits for a worker of its build."
    if job.state.is_held:
        far = f"{job.requests_done} of {job.requests_total} requests answered" if job.requests_done else ""
        return ", ".join(filter(None, (far, job.phase))) or "Starting."
    return "Its answers are being compared."
