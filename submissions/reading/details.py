"""One evaluation with everything that is known of it: benchmarks, jobs with their attempts, cost, events."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlmodel import Session, col, select

from orchestrator import results
from orchestrator.errors import next_step
from orchestrator.lifecycle import JobState
from orchestrator.roster import DEFAULT_POLICY
from orchestrator.scheduling.places import Policy
from orchestrator.series import places_of
from orchestrator.suite_versions import confidential, find_version
from orchestrator.suites import Suite
from orchestrator.tables import Attempt, Evaluation, Event, Job, Score, Submission
from orchestrator.visibility import audience_of
from orchestrator.wire import Stage
from submissions import words
from submissions.reading.evaluations import as_records, find, is_folder
from submissions.reading.history import read_history
from submissions.reading.waiting import waiting_because, waiting_jobs
from submissions.records import (
    AttemptRecord,
    BenchmarkRecord,
    CostRecord,
    EvaluationDetail,
    EventRecord,
    JobRecord,
    ScoreRecord,
    SeriesPlace,
)

MOST_EVENTS = 300


def read_detail(
    session: Session, evaluation_id: int, *, suites: Mapping[str, Suite], policy: Policy = DEFAULT_POLICY
) -> EvaluationDetail:
    """One evaluation with everything that is known of it.

    Raises:
        NotFound: there is none with this id.
    """
    pair = find(session, evaluation_id)
    evaluation, submission = pair
    record = as_records(session, [pair])[0]
    jobs = session.exec(
        select(Job).where(Job.evaluation_id == evaluation_id, Job.stage != Stage.CANARY).order_by(col(Job.id))
    ).all()
    scores = session.exec(select(Score).where(Score.evaluation_id == evaluation_id).order_by(col(Score.id))).all()
    # What a canary asks of its model is no part of how the evaluation went.
    canaries = select(Job.id).where(Job.evaluation_id == evaluation_id, Job.stage == Stage.CANARY)
    events = session.exec(
        select(Event)
        .where(Event.evaluation_id == evaluation_id, col(Event.job_id).is_(None) | col(Event.job_id).not_in(canaries))
        .order_by(col(Event.id).desc())
        .limit(MOST_EVENTS)
    ).all()
    suite = find_version(session, suites, evaluation.suite, evaluation.suite_version)
    attempts = results.attempts_of(session, jobs)
    infers = [job for job in jobs if job.stage is Stage.INFER]
    record.waiting_because = waiting_because(session, record, policy=policy)
    reasons = waiting_jobs(session, jobs, policy=policy)
    return EvaluationDetail(
        **record.model_dump(),
        base_revision=submission.base_revision,
        base_folder=submission.base_folder,
        folder=submission.folder,
        benchmarks=_benchmarks(
            jobs,
            scores,
            suite=suite,
            hidden=confidential(session, evaluation.suite),
            is_folder=is_folder(submission),
        ),
        jobs=[_job_record(job, attempts[job.id or 0], because=reasons.get(job.id or 0, "")) for job in jobs],
        cost=_cost(infers, attempts),
        events=[
            EventRecord(at=event.at, name=event.name, job=event.job_id, details=event.details)
            for event in reversed(events)
        ],
        facts=submission.facts,
        history=read_history(session, evaluation),
        series=_series(session, evaluation, submission),
    )


def _series(session: Session, evaluation: Evaluation, submission: Submission) -> list[SeriesPlace]:
    """The series of whose evaluation it is, and of who reads.

    Whoever asks for what is there already gets a point on it: what others call theirs is no part of this one's page.
    """
    audience = audience_of(session)
    owners = {submission.person_id or 0, audience.person}
    return [
        SeriesPlace(**place._asdict())
        for place in places_of(session, evaluation.id or 0)
        if audience.everything or place.owner in owners
    ]


def _benchmarks(
    jobs: Sequence[Job], scores: Sequence[Score], *, suite: Suite | None, hidden: frozenset[str], is_folder: bool
) -> list[BenchmarkRecord]:
    """`hidden`: benchmarks whose samples are not shown."""
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
                next_step=next_step(last.failure, is_folder=is_folder) if failed and last.failure else "",
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
                has_samples=last.stage is Stage.SCORE and bool(last.result.get("results")) and name not in hidden,
            )
        )
    return records


def _job_record(job: Job, attempts: Sequence[Attempt], *, because: str) -> JobRecord:
    return JobRecord(
        id=job.id or 0,
        stage=job.stage,
        benchmark=job.benchmark,
        slice_index=job.slice_index,
        slice_count=job.slice_count,
        state=job.state,
        phase=job.phase,
        requests_done=job.requests_done,
        requests_total=job.requests_total,
        attempts=len(attempts),
        history=[_attempt_record(attempt) for attempt in attempts],
        worker=attempts[-1].worker if attempts else None,
        failure=job.failure,
        sentence=job.sentence,
        log_tail=job.log_tail,
        waiting_because=because,
    )


def _cost(infers: Sequence[Job], attempts: Mapping[int, Sequence[Attempt]]) -> CostRecord:
    cost = results.finite(results.add_up(infers, attempts))
    outcomes = [attempt.outcome for job in infers for attempt in attempts[job.id or 0]]
    said = []
    if outcomes:
        tokens = f"{words.count(cost['tokens_computed'], 'token')} computed and {cost['tokens_reused']:,} reused"
        held = words.duration(cost["device_seconds"])
        said.append(f"Engine time {words.duration(cost['seconds'])}, {tokens}; devices were held for {held}.")
    if cost["reused"]:
        every = cost["computed"] + cost["reused"]
        said.append(f"{cost['reused']:,} of {words.count(every, 'response')} were there already.")
    if len(outcomes) > len(infers) or cost["restarts"]:
        again = len(cost["restarts"])
        more = f", and an engine was started again {words.times(again)} within one" if again else ""
        said.append(f"Inference took {words.attempts(outcomes)}{more}.")
    return CostRecord(text=" ".join(said), **{name: cost[name] for name in CostRecord.model_fields if name != "text"})


def _attempt_record(attempt: Attempt) -> AttemptRecord:
    return AttemptRecord(
        worker=attempt.worker,
        devices=attempt.devices,
        dispatched_at=attempt.dispatched_at,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        outcome=attempt.outcome,
        failure=attempt.failure,
        sentence=attempt.sentence,
        restarts=list(attempt.restarts or ()),
        spent=results.spent_by(attempt),
    )
