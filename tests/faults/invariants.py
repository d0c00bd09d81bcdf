"""What must hold after any storm, read from the database and the artifacts alone: each fault found is a sentence.

Nothing here knows which faults were made, but for the segments that were damaged on purpose and the times at which the
hub could not listen.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import col, select

from orchestrator import arrows
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.tables import Attempt, Evaluation, Event, Job, Score
from orchestrator.wire import Stage, identity_digest
from tests.fleet import Fleet
from workers import segments

Numbers = dict[tuple[str, str, str, str], float]
"""Scores by benchmark, task, metric and filter."""


@dataclass(frozen=True)
class Undisturbed:
    """What an evaluation without any fault gives."""

    scores: Mapping[tuple[str, int], Numbers]
    """By suite and limit."""
    responses: Mapping[str, segments.Response]
    """By request."""


def ended(fleet: Fleet, accepted: Mapping[int, tuple[str, int]]) -> list[str]:
    """Every accepted evaluation is there and ended, with a reason unless it has everything."""
    rows = {row.id: row for row in fleet.rows(select(Evaluation))}
    found = []
    for evaluation in accepted:
        row = rows.get(evaluation)
        if row is None:
            found.append(f"evaluation {evaluation} is lost")
        elif not row.state.is_final:
            found.append(f"evaluation {evaluation} is {row.state.value} for ever")
        elif row.average is None and not row.sentence:
            found.append(f"evaluation {evaluation} is {row.state.value} without average and without a reason")
        elif row.state is EvaluationState.FAILED and row.failure is None:
            found.append(f"evaluation {evaluation} failed without a class")
    return found


def history(fleet: Fleet) -> list[str]:
    """The events of each job are one walk along the life-cycle, in which only the attempt that holds it takes part."""
    found = []
    events: dict[int, list[Event]] = defaultdict(list)
    for event in fleet.rows(select(Event).where(col(Event.job_id).is_not(None)).order_by(col(Event.id))):
        events[event.job_id].append(event)
    for job in fleet.rows(select(Job)):
        holder: str | None = None
        for event in events[job.id]:
            if event.name == arrows.JOB_CLAIMED:
                if holder is not None:
                    found.append(f"job {job.id}: {event.attempt_id} claimed it from {holder}")
                holder = event.attempt_id
            elif event.attempt_id != holder:
                found.append(f"job {job.id}: {event.name} by {event.attempt_id} while {holder} held it")
            elif event.name != arrows.JOB_STARTED:
                holder = None
        if holder is not None:
            found.append(f"job {job.id}: attempt {holder} never ended")
        last = {arrows.JOB_COMPLETED: JobState.COMPLETED, arrows.JOB_FAILED: JobState.FAILED}
        if events[job.id] and last.get(events[job.id][-1].name, job.state) is not job.state:
            found.append(f"job {job.id} is {job.state.value} after {events[job.id][-1].name}")
    return found


def attempts(fleet: Fleet) -> list[str]:
    """Every attempt has ended and says how; a completed job is that of its one completed attempt."""
    found = []
    by_job: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in fleet.rows(select(Attempt)):
        by_job[attempt.job_id].append(attempt)
        if attempt.ended_at is None or not attempt.outcome:
            found.append(f"attempt {attempt.id} of job {attempt.job_id} has no end")
        elif attempt.outcome in ("failed", "expired") and not (attempt.sentence and attempt.failure):
            found.append(f"attempt {attempt.id} {attempt.outcome} without a reason")
    for job in fleet.rows(select(Job).where(Job.state == JobState.COMPLETED)):
        completed = [one.id for one in by_job[job.id] if one.outcome == "completed"]
        if job.attempt_id not in completed:
            found.append(f"job {job.id} is completed by {job.attempt_id}, which is not among {completed}")
        for name in ("sheet", "results"):
            if name in job.result and not str(job.result[name]).endswith(f"/{job.attempt_id}"):
                found.append(f"job {job.id} has the {name} of another attempt: {job.result[name]}")
    return found


def scores(fleet: Fleet, accepted: Mapping[int, tuple[str, int]], undisturbed: Undisturbed) -> list[str]:
    """Each scored benchmark has exactly one value, written by the attempt that completed, and it is the right one."""
    found = []
    rows: dict[int, list[Score]] = defaultdict(list)
    for row in fleet.rows(select(Score)):
        rows[row.evaluation_id].append(row)
    jobs: dict[int, list[Job]] = defaultdict(list)
    for job in fleet.rows(select(Job).where(Job.stage == Stage.SCORE)):
        jobs[job.evaluation_id].append(job)
    for evaluation, shape in accepted.items():
        for job in jobs[evaluation]:
            own = [row for row in rows[evaluation] if row.benchmark == job.benchmark]
            values = [row for row in own if not row.task and row.metric == "value"]
            if len(values) != (job.state is JobState.COMPLETED):
                found.append(f"evaluation {evaluation} {job.benchmark} is {job.state.value}, with {len(values)} values")
            if any((row.attempt_id, row.job_id) != (job.attempt_id, job.id) for row in own):
                found.append(f"evaluation {evaluation} {job.benchmark} has scores of another attempt")
            numbers = {(row.benchmark, row.task, row.metric, row.filter): row.value for row in own}
            right = {key: value for key, value in undisturbed.scores[shape].items() if key[0] == job.benchmark}
            if job.state is JobState.COMPLETED and numbers != right:
                found.append(f"evaluation {evaluation} {job.benchmark} is {numbers}, undisturbed {right}")
    return found


def responses(fleet: Fleet, undisturbed: Undisturbed, *, damaged: set[str]) -> list[str]:
    """Every segment that was not damaged on purpose is whole, whoever wrote it, and every answer in it is right."""
    found = []
    for key in fleet.store.list("responses"):
        if key in damaged:
            continue
        try:
            _, records = segments.read(fleet.store.fetch_file(key, fleet.folder))
        except segments.DamagedSegment as error:
            found.append(f"{key}: {error}")
            continue
        wrong = [one.id for one in records if one.id in undisturbed.responses and one != undisturbed.responses[one.id]]
        found.extend(f"{key}: another answer to {one}" for one in wrong)
    return found


def complete(fleet: Fleet, accepted: Mapping[int, tuple[str, int]]) -> list[str]:
    """After a retry in the calm every evaluation has its average, but for those that somebody cancelled."""
    rows = {row.id: row for row in fleet.rows(select(Evaluation))}
    found = []
    for evaluation in accepted:
        row = rows.get(evaluation)
        if row is not None and row.state is not EvaluationState.CANCELLED and row.average is None:
            found.append(f"evaluation {evaluation} lacks scores after a retry in the calm: {row.sentence}")
    return found


@dataclass(frozen=True)
class Recovery:
    """How lost attempts came back."""

    recovered: int
    """Attempts that were lost, given back or failed by a passing fault, and whose job was given out again."""
    largest: timedelta
    """From the last sign of life until the job was queued again, of those that a lease had to find."""
    most_overdue: timedelta
    """The same, beyond the end of the lease, the time for which the hub could not listen, and the machine's lateness in
    between."""


def recovery(
    fleet: Fleet, listens_at: Callable[[datetime], datetime], late: Callable[[datetime, datetime], timedelta]
) -> Recovery:
    """`listens_at` says when the hub may give up an attempt whose lease ended at that moment, `late` by how much this
    machine was late between two moments."""
    lease = timedelta(seconds=fleet.lease_seconds)
    rows = fleet.rows(select(Attempt).order_by(col(Attempt.dispatched_at)))
    last = {row.job_id: row.id for row in rows}
    lapsed = [row for row in rows if row.outcome == "expired" and "until the lease ended" in row.sentence]
    return Recovery(
        recovered=sum(row.outcome not in ("completed", "cancelled") and last[row.job_id] != row.id for row in rows),
        largest=max((row.ended_at - row.lease_until + lease for row in lapsed), default=timedelta(0)),
        most_overdue=max(
            (row.ended_at - listens_at(row.lease_until) - late(row.lease_until, row.ended_at) for row in lapsed),
            default=timedelta(0),
        ),
    )


def computed(fleet: Fleet, *, damaged: set[str]) -> Counter[str]:
    """How often each request of each identity was answered, in segments that are whole."""
    found: Counter[str] = Counter()
    for key in fleet.store.list("responses"):
        if key not in damaged:
            header, records = segments.read(fleet.store.fetch_file(key, fleet.folder))
            found.update(f"{header.identity}/{one.id}" for one in records)
    return found


def identities(fleet: Fleet, evaluations: Mapping[int, object]) -> frozenset[str]:
    """Identity digests of these evaluations' models."""
    statement = select(Job).where(col(Job.evaluation_id).in_(evaluations), Job.stage == Stage.INFER)
    return frozenset(identity_digest(job.identity) for job in fleet.rows(statement) if job.identity)
