"""The queue: what runs, what waits and why, what failed lately, and the workers that are there to do it."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sqlmodel import Session, col, select

from orchestrator import breaker
from orchestrator.canaries.admission import read_admission
from orchestrator.canaries.builds import Entry
from orchestrator.doubles import doubles
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.program import program
from orchestrator.roster import DEFAULT_POLICY, why_closed
from orchestrator.scheduling.places import Policy
from orchestrator.tables import Attempt, Evaluation, Job, Submission, Worker
from orchestrator.visibility import audience_of, unrestricted
from orchestrator.wire import Gpu, Mode, Stage
from submissions import words
from submissions.reading.evaluations import IN_LINE, as_records
from submissions.reading.waiting import with_reasons
from submissions.records import QueueRecord, WorkerRecord

WORKER_IS_UP_FOR = timedelta(seconds=30)
"""After its last heartbeat; workers send one every few seconds."""


def read_queue(
    session: Session, *, now: datetime | None = None, most: int = 200, policy: Policy = DEFAULT_POLICY
) -> QueueRecord:
    """What runs, what waits in its order, what failed lately, and who is there to do the work."""
    now = now or datetime.now(UTC)
    joined = select(Evaluation, Submission).join(Submission, col(Submission.id) == col(Evaluation.submission_id))
    open_pairs = session.exec(
        joined.where(col(Evaluation.state).in_(IN_LINE)).order_by(col(Evaluation.id)).limit(most)
    ).all()
    failed_pairs = session.exec(
        joined.where(Evaluation.state == EvaluationState.FAILED).order_by(col(Evaluation.ended_at).desc()).limit(10)
    ).all()
    unfinished = with_reasons(session, as_records(session, open_pairs), now=now, policy=policy)
    return QueueRecord(
        running=[record for record in unfinished if not record.is_waiting],
        waiting=[record for record in unfinished if record.is_waiting],
        failed=as_records(session, failed_pairs),
        workers=read_workers(session, now),
    )


def read_workers(session: Session, now: datetime) -> list[WorkerRecord]:
    """Every worker that has reported, with what it does now."""
    doing: dict[str, list[str]] = defaultdict(list)
    held = (
        select(Attempt.worker, Job)
        .join(Job, col(Job.id) == col(Attempt.job_id))
        .where(col(Attempt.ended_at).is_(None), col(Job.state).in_([JobState.DISPATCHED, JobState.RUNNING]))
    )
    with unrestricted(session):  # by their numbers alone
        busy = session.exec(held).all()
    for worker, job in busy:
        if job.stage is Stage.CANARY:
            doing[worker].append("the canary")
            continue
        what = f"{job.stage.value} {job.benchmark}".strip()
        part = f", slice {job.slice_index + 1} of {job.slice_count}" if job.slice_count > 1 else ""
        far = f" ({words.percent(job.requests_done / job.requests_total)})" if job.requests_total else ""
        doing[worker].append(f"{what} of evaluation {job.evaluation_id}{part}{far}")
    listed = session.exec(select(Worker).order_by(col(Worker.kind), col(Worker.name))).all()
    suspicions = breaker.suspicions(session, now=now)
    admission = read_admission(session)
    seconds = doubles(listed, now=now)
    commits = {commit for worker in listed for commit in worker.warm or ()}
    known = {commit: words.revision(commit) for commit in commits} if audience_of(session).everything else {}
    names = known | _names(session, commits)
    tell_who = audience_of(session).everything
    return [
        _worker(
            worker,
            doing[worker.name],
            suspicions.get(worker.name),
            entry=admission.of(worker),
            is_second=seconds.get(worker.name, ""),
            names=names,
            tell_who=tell_who,
            now=now,
        )
        for worker in listed
    ]


def read_worker(session: Session, name: str, *, now: datetime | None = None) -> WorkerRecord:
    """One worker; it is there."""
    return next(one for one in read_workers(session, now or datetime.now(UTC)) if one.name == name)


def _names(session: Session, commits: set[str]) -> dict[str, str]:
    """Under which name a commit was submitted last."""
    if not commits:
        return {}
    query = select(Submission.revision, Submission.model).where(col(Submission.revision).in_(commits))
    return dict(session.exec(query.order_by(col(Submission.id))).all())


def _worker(
    worker: Worker,
    doing: list[str],
    suspicion: breaker.Suspicion | None,
    *,
    entry: Entry,
    is_second: str,
    names: Mapping[str, str],
    tell_who: bool,
    now: datetime,
) -> WorkerRecord:
    engine = f"{worker.engine_family.value} {worker.engine_version or ''}".strip() if worker.engine_family else None
    sentence = why_closed(worker, suspicion, entry=entry, is_second=is_second)
    if tell_who and suspicion and sentence == suspicion.sentence:
        sentence += f" Once its host is mended: {program()} worker resume {worker.name}"
    is_open, is_sound = worker.mode is Mode.OPEN, not (suspicion and suspicion.held_back)
    return WorkerRecord(
        name=worker.name,
        kind=worker.kind,
        is_up=now - worker.last_heartbeat < WORKER_IS_UP_FOR,
        stopping=worker.stopping,
        engine=engine,
        device=worker.device,
        last_heartbeat=worker.last_heartbeat,
        doing=doing,
        mode=worker.mode,
        mode_by=worker.mode_by if tell_who else "",
        mode_since=worker.mode_since if tell_who else None,
        sentence=sentence,
        slots=0 if is_second or not is_open or not is_sound or entry is not Entry.OPEN else worker.slots,
        until=worker.until,
        devices=worker.device_count if worker.device_type == "cuda" else 0,
        warm=[names[commit] for commit in worker.warm or () if commit in names],
        gpus=[Gpu.model_validate(gpu) for gpu in worker.gpus or ()],
    )
