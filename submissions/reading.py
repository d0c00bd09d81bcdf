"""What the database says of evaluations, jobs and workers, as records for the API and the pages. Never writes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import func
from sqlmodel import Session, col, select

from orchestrator.dispatch import waiting_reasons
from orchestrator.errors import NotFound, next_step
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.suites import Suite, SuiteBenchmark
from orchestrator.tables import Attempt, Evaluation, Event, Job, Score, Submission, Worker
from orchestrator.wire import Stage
from submissions.records import (
    BenchmarkRecord,
    EvaluationDetail,
    EvaluationRecord,
    EventRecord,
    JobRecord,
    Progress,
    QueueRecord,
    ScoreRecord,
    SuiteBenchmarkRecord,
    SuiteRecord,
    WorkerRecord,
)

FINAL_STATES = [state for state in EvaluationState if state.is_final]
WORKER_IS_UP_FOR = timedelta(seconds=30)
"""After its last heartbeat; workers send one every few seconds."""
MOST_EVENTS = 300


def list_evaluations(
    session: Session,
    *,
    state: EvaluationState | None = None,
    suite: str | None = None,
    model: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[EvaluationRecord]:
    """The latest evaluations first; `before` is the last id of the page before."""
    query = select(Evaluation, Submission).join(Submission, col(Submission.id) == col(Evaluation.submission_id))
    if state is not None:
        query = query.where(Evaluation.state == state)
    if suite is not None:
        query = query.where(Evaluation.suite == suite)
    if model is not None:
        query = query.where(Submission.model == model)
    if before is not None:
        query = query.where(col(Evaluation.id) < before)
    pairs = session.exec(query.order_by(col(Evaluation.id).desc()).limit(limit)).all()
    return _with_reasons(session, _as_records(session, pairs), now=datetime.now(UTC))


def read_evaluation(session: Session, evaluation_id: int) -> EvaluationRecord:
    """One evaluation as lists show it.

    Raises:
        NotFound: there is none with this id.
    """
    return _as_records(session, [_pair(session, evaluation_id)])[0]


def read_detail(session: Session, evaluation_id: int, *, suites: Mapping[str, Suite]) -> EvaluationDetail:
    """One evaluation with everything that is known of it.

    Raises:
        NotFound: there is none with this id.
    """
    pair = _pair(session, evaluation_id)
    evaluation, submission = pair
    record = _as_records(session, [pair])[0]
    jobs = session.exec(select(Job).where(Job.evaluation_id == evaluation_id).order_by(col(Job.id))).all()
    scores = session.exec(select(Score).where(Score.evaluation_id == evaluation_id).order_by(col(Score.id))).all()
    events = session.exec(
        select(Event).where(Event.evaluation_id == evaluation_id).order_by(col(Event.id).desc()).limit(MOST_EVENTS)
    ).all()
    suite = suites.get(evaluation.suite)
    return EvaluationDetail(
        **record.model_dump(),
        base_revision=submission.base_revision,
        base_folder=submission.base_folder,
        folder=submission.folder,
        submitter=submission.submitter,
        benchmarks=_benchmarks(jobs, scores, suite=suite),
        jobs=_job_records(session, jobs),
        events=[
            EventRecord(at=event.at, name=event.name, job=event.job_id, details=event.details)
            for event in reversed(events)
        ],
        facts=submission.facts,
    )


def read_queue(session: Session, *, now: datetime | None = None, most: int = 200) -> QueueRecord:
    """What runs, what waits in its order, what failed lately, and who is there to do the work."""
    now = now or datetime.now(UTC)
    joined = select(Evaluation, Submission).join(Submission, col(Submission.id) == col(Evaluation.submission_id))
    open_pairs = session.exec(
        joined.where(col(Evaluation.state).not_in(FINAL_STATES)).order_by(col(Evaluation.id)).limit(most)
    ).all()
    failed_pairs = session.exec(
        joined.where(Evaluation.state == EvaluationState.FAILED).order_by(col(Evaluation.ended_at).desc()).limit(10)
    ).all()
    unfinished = _with_reasons(session, _as_records(session, open_pairs), now=now)
    return QueueRecord(
        running=[record for record in unfinished if not record.is_waiting],
        waiting=[record for record in unfinished if record.is_waiting],
        failed=_as_records(session, failed_pairs),
        workers=_workers(session, now),
    )


def waiting_because(session: Session, record: EvaluationRecord, *, now: datetime | None = None) -> str:
    """Why an evaluation does not move, in a sentence; empty when it does."""
    return _waiting_because(session, [record.id], now=now or datetime.now(UTC)).get(record.id, "")


def counting_benchmark(
    session: Session, evaluation_id: int, benchmark: str, *, suites: Mapping[str, Suite]
) -> SuiteBenchmark | None:
    """What an evaluation's suite says of a benchmark; None once the suite is another version or gone."""
    evaluation = session.get(Evaluation, evaluation_id)
    suite = suites.get(evaluation.suite) if evaluation else None
    if evaluation is None or suite is None or suite.version != evaluation.suite_version:
        return None
    return next((found for found in suite.benchmarks if found.name == benchmark), None)


def suite_record(suite: Suite) -> SuiteRecord:
    return SuiteRecord(
        name=suite.name,
        version=suite.version,
        title=suite.title,
        description=suite.description,
        harness=suite.harness,
        chat_template=suite.chat_template,
        benchmarks=[
            SuiteBenchmarkRecord(
                name=benchmark.name,
                description=benchmark.description,
                tasks=list(benchmark.tasks),
                num_fewshot=benchmark.num_fewshot,
                normalised=benchmark.normalised,
            )
            for benchmark in suite.benchmarks
        ],
        known_problems=list(suite.known_problems),
    )


def _pair(session: Session, evaluation_id: int) -> tuple[Evaluation, Submission]:
    pair = session.exec(
        select(Evaluation, Submission)
        .join(Submission, col(Submission.id) == col(Evaluation.submission_id))
        .where(Evaluation.id == evaluation_id)
    ).first()
    if pair is None:
        raise NotFound(f"There is no evaluation {evaluation_id}. The latest ones are in the queue.")
    return pair


def _as_records(session: Session, pairs: Sequence[tuple[Evaluation, Submission]]) -> list[EvaluationRecord]:
    ids = [evaluation.id for evaluation, _ in pairs if evaluation.id is not None]
    if not ids:
        return []
    jobs: dict[int, list[Job]] = defaultdict(list)
    for job in session.exec(select(Job).where(col(Job.evaluation_id).in_(ids))):
        jobs[job.evaluation_id].append(job)
    unfinished = [evaluation.id for evaluation, _ in pairs if not evaluation.state.is_final]
    earlier: list[int] = []
    if unfinished:
        query = select(Evaluation.id).where(
            col(Evaluation.state).not_in(FINAL_STATES), col(Evaluation.id) < max(filter(None, unfinished))
        )
        earlier = [found for found in session.exec(query) if found is not None]
    records = []
    for evaluation, submission in pairs:
        assert evaluation.id is not None
        kind = evaluation.failure
        records.append(
            EvaluationRecord(
                id=evaluation.id,
                model=submission.model,
                revision=submission.revision,
                precision=submission.precision,
                weight_type=submission.weight_type,
                base_model=submission.base_model,
                model_type=submission.model_type,
                chat_template=submission.chat_template,
                architecture=submission.architecture,
                parameters=submission.parameters,
                licence=submission.licence,
                suite=evaluation.suite,
                suite_version=evaluation.suite_version,
                engine=evaluation.engine,
                limit=evaluation.document_limit,
                state=evaluation.state,
                is_waiting=not evaluation.state.is_final
                and not any(job.state.is_held for job in next_jobs(jobs[evaluation.id])),
                progress=progress_of(evaluation.state, jobs[evaluation.id]),
                ahead=None if evaluation.state.is_final else sum(1 for other in earlier if other < evaluation.id),
                failure=kind,
                sentence=evaluation.sentence,
                next_step=next_step(kind) if kind else "",
                average=evaluation.average,
                created_at=evaluation.created_at,
                started_at=evaluation.started_at,
                ended_at=evaluation.ended_at,
            )
        )
    return records


def next_jobs(jobs: Iterable[Job]) -> list[Job]:
    """The open jobs of the earliest stage that has any: scores may be made while inference waits. Pure."""
    open_jobs = [job for job in jobs if not job.state.is_final and job.state is not JobState.BLOCKED]
    return next((found for stage in Stage if (found := [job for job in open_jobs if job.stage is stage])), [])


def progress_of(state: EvaluationState, jobs: Iterable[Job]) -> Progress:
    """How far an evaluation is within its present state. Pure."""
    facts = list(jobs)
    by_stage = {stage: [job for job in facts if job.stage is stage] for stage in Stage}
    if state is EvaluationState.PREPARING:
        return _counted(by_stage[Stage.PREPARE], "benchmark", "prepared")
    if state is EvaluationState.RUNNING:
        infer = by_stage[Stage.INFER]
        done, total = sum(job.requests_done for job in infer), sum(job.requests_total for job in infer)
        phase = next((job.phase for job in infer if job.phase), "")
        if not total:
            return Progress(text=phase or ("starting" if any(job.state.is_held for job in infer) else ""))
        text = f"{done} of {total} requests answered"
        return Progress(done=done, total=total, text=f"{text}, {phase}" if phase and phase != "answering" else text)
    if state is EvaluationState.SCORING:
        return _counted(by_stage[Stage.SCORE], "benchmark", "scored")
    if state is EvaluationState.FINISHED:
        return Progress(done=1, total=1, text="")
    return Progress()


def _counted(jobs: Sequence[Job], noun: str, verb: str) -> Progress:
    """Those that failed are no progress: they are told apart."""
    done = sum(1 for job in jobs if job.state is JobState.COMPLETED)
    failed = sum(1 for job in jobs if job.state is JobState.FAILED)
    text = f"{done} of {len(jobs)} {noun}{'' if len(jobs) == 1 else 's'} {verb}"
    return Progress(done=done, total=len(jobs), text=f"{text}, {failed} failed" if failed else text)


def _benchmarks(jobs: Sequence[Job], scores: Sequence[Score], *, suite: Suite | None) -> list[BenchmarkRecord]:
    described = {benchmark.name: benchmark.description for benchmark in suite.benchmarks} if suite else {}
    order = {name: position for position, name in enumerate(described)}
    by_benchmark: dict[str, dict[Stage, Job]] = defaultdict(dict)
    for job in jobs:
        if job.benchmark:
            by_benchmark[job.benchmark][job.stage] = job
    records = []
    for name, stages in sorted(by_benchmark.items(), key=lambda item: order.get(item[0], len(order))):
        last = stages.get(Stage.SCORE) or stages[Stage.PREPARE]
        own = {score.metric: score for score in scores if score.benchmark == name and not score.task}
        value, raw = own.get("value"), own.get("raw")
        # A score job that fails because prepare did has no log of its own.
        logged = next((job.log_tail for job in (last, *stages.values()) if job.log_tail), "")
        failed = last.state is JobState.FAILED
        records.append(
            BenchmarkRecord(
                name=name,
                description=described.get(name, ""),
                state=last.state,
                sentence=last.sentence if failed else "",
                failure=last.failure if failed else None,
                next_step=next_step(last.failure) if failed and last.failure else "",
                log_tail=logged if failed else "",
                value=value.value if value else None,
                raw=raw.value if raw else None,
                stderr=value.stderr if value else None,
                samples=value.samples if value else 0,
                scores=[
                    ScoreRecord(
                        task=score.task,
                        metric=score.metric,
                        filter=score.filter,
                        value=score.value,
                        stderr=score.stderr,
                        samples=score.samples,
                    )
                    for score in scores
                    if score.benchmark == name and score.task
                ],
                provenance=(value.provenance if value else {}) or (raw.provenance if raw else {}),
                has_samples=last.stage is Stage.SCORE and bool(last.result.get("results")),
            )
        )
    return records


def _job_records(session: Session, jobs: Sequence[Job]) -> list[JobRecord]:
    attempts: dict[int, list[Attempt]] = defaultdict(list)
    ids = [job.id for job in jobs]
    for attempt in session.exec(
        select(Attempt).where(col(Attempt.job_id).in_(ids)).order_by(col(Attempt.dispatched_at))
    ):
        attempts[attempt.job_id].append(attempt)
    return [
        JobRecord(
            id=job.id or 0,
            stage=job.stage,
            benchmark=job.benchmark,
            state=job.state,
            phase=job.phase,
            requests_done=job.requests_done,
            requests_total=job.requests_total,
            attempts=len(attempts[job.id or 0]),
            worker=attempts[job.id or 0][-1].worker if attempts[job.id or 0] else None,
            failure=job.failure,
            sentence=job.sentence,
            log_tail=job.log_tail,
        )
        for job in jobs
    ]


def _workers(session: Session, now: datetime) -> list[WorkerRecord]:
    doing: dict[str, list[str]] = defaultdict(list)
    held = session.exec(
        select(Attempt.worker, Job)
        .join(Job, col(Job.id) == col(Attempt.job_id))
        .where(col(Attempt.ended_at).is_(None), col(Job.state).in_([JobState.DISPATCHED, JobState.RUNNING]))
    )
    for worker, job in held:
        what = f"{job.stage.value} {job.benchmark}".strip()
        doing[worker].append(f"{what} of evaluation {job.evaluation_id}")
    return [
        WorkerRecord(
            name=worker.name,
            kind=worker.kind,
            is_up=now - worker.last_heartbeat < WORKER_IS_UP_FOR,
            stopping=worker.stopping,
            engine=f"{worker.engine_family.value} {worker.engine_version or ''}".strip()
            if worker.engine_family
            else None,
            device=worker.device,
            last_heartbeat=worker.last_heartbeat,
            doing=doing[worker.name],
        )
        for worker in session.exec(select(Worker).order_by(col(Worker.kind), col(Worker.name)))
    ]


def _with_reasons(session: Session, records: list[EvaluationRecord], *, now: datetime) -> list[EvaluationRecord]:
    """The records, those that wait with the reason."""
    because = _waiting_because(session, [record.id for record in records if record.is_waiting], now=now)
    for record in records:
        record.waiting_because = because.get(record.id, "")
    return records


def _waiting_because(session: Session, evaluations: Sequence[int], *, now: datetime) -> dict[int, str]:
    """Why evaluations do not move, by id, as the scheduler sees it; those that move are not among them."""
    open_states = [JobState.QUEUED, JobState.DISPATCHED, JobState.RUNNING]
    jobs: dict[int, list[Job]] = defaultdict(list)
    query = select(Job).where(col(Job.evaluation_id).in_(evaluations), col(Job.state).in_(open_states))
    for job in session.exec(query.order_by(col(Job.id))):
        jobs[job.evaluation_id].append(job)
    if not jobs:
        return {}
    reasons = waiting_reasons(session, now)
    found = {}
    for evaluation, unfinished in jobs.items():
        first = next_jobs(unfinished)
        if not any(job.state.is_held for job in first):
            found[evaluation] = next((reasons[job.id] for job in first if job.id in reasons), "")
    return found


def count_by_suite(session: Session, *states: EvaluationState) -> dict[str, int]:
    """Evaluations in these states for each suite; without any, the finished ones."""
    counted = session.exec(
        select(Evaluation.suite, func.count())
        .where(col(Evaluation.state).in_(states or [EvaluationState.FINISHED]))
        .group_by(col(Evaluation.suite))
    )
    return dict(counted.all())


def suite_to_show(session: Session, suites: Iterable[str]) -> str:
    """The suite of a board when none is named: the one with most scores, else the one with most to come."""
    finished = count_by_suite(session)
    unfinished = count_by_suite(session, *(state for state in EvaluationState if not state.is_final))
    return max(suites, key=lambda name: (finished.get(name, 0), unfinished.get(name, 0), name), default="")
