"""Which infer jobs to share out over several engines: where more devices are idle than jobs wait for them.

A slice is a job of its own that answers a part of the requests; a worker knows nothing of the others. Deciding
(`splits`) is pure; `split` writes the rows, once, and only while the job is queued and as it was looked at.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import update
from sqlmodel import Session, col

from orchestrator.dossiers import open_dossier
from orchestrator.lifecycle import JobState
from orchestrator.scheduling.estimates import Speeds, device_key
from orchestrator.scheduling.places import Policy, Pool, QueuedJob, WorkerView, devices_for, is_live, pool_of, refusal
from orchestrator.scheduling.room import Assignment
from orchestrator.scheduling.scheduler import NO_SPEEDS, Round
from orchestrator.tables import Event, Job
from orchestrator.wire import Stage

JOB_SPLIT = "job_split"


class Split(NamedTuple):
    job: QueuedJob
    into: int
    device_type: str | None
    """Where all slices are answered: responses of one type of device are unknown on another."""


def splits(
    planned: Round,
    workers: Iterable[WorkerView],
    policy: Policy,
    now: datetime,
    *,
    speeds: Speeds = NO_SPEEDS,
    most_gpus: int | None = None,
) -> list[Split]:
    """How the infer jobs that are about to start share the devices that the plan leaves idle, the largest first.

    The plan leaves none idle for which a fitting job waits, unless it keeps them for one. `most_gpus`: how many may be
    taken in this round, those of the plan among them (`orchestrator.shares`).
    """
    spare = None
    if most_gpus is not None:
        spare = most_gpus - sum(one.devices for one in planned.assignments if one.worker.holds_gpus)
    kept = {one.worker.name for one in planned.reserved}
    taken: dict[str, int] = defaultdict(int)
    for one in planned.assignments:
        taken[one.worker.name] += one.devices
    idle: dict[Pool, dict[str, tuple[WorkerView, int]]] = defaultdict(dict)
    for worker in workers:
        left = worker.free_slots - taken[worker.name]
        if worker.kind == "engine" and left > 0 and worker.name not in kept and is_live(worker, policy, now):
            idle[pool_of(worker)][worker.name] = (worker, left)
    starting = [one for one in planned.assignments if one.job.stage is Stage.INFER and not one.job.failed_on]
    found = []
    for assignment in sorted(starting, key=lambda one: (-one.job.requests, one.job.id)):
        there = idle[pool_of(assignment.worker)]
        most = min(_most_slices(assignment, policy, speeds), policy.most_slices // assignment.job.slice_count)
        into = 1
        for name, (worker, left) in sorted(there.items(), key=lambda entry: (-entry[1][1], entry[0])):
            devices = devices_for(assignment.job, worker)
            if not devices or worker.device_type != assignment.worker.device_type or refusal(worker, assignment.job):
                continue
            if worker.until is not None and worker.until - now < policy.useful_window:
                continue
            more = min(left // devices, most - into)
            if spare is not None and worker.holds_gpus:
                more = min(more, spare // devices)
            if more > 0:
                into += more
                if spare is not None and worker.holds_gpus:
                    spare -= more * devices
                there[name] = (worker, left - more * devices)
        if into > 1:
            found.append(Split(assignment.job, into, assignment.worker.device_type))
    return found


def split(session: Session, one: Split, *, now: datetime) -> bool:
    """Make the job the first of its slices and queue the others; False when it is not as it was looked at any more.

    Slice i of n becomes the slices i, i + n, i + 2n, … of a multiple of n: together they answer what it would have.
    """
    dossier = open_dossier(session, one.job.evaluation)
    job = dossier.job(one.job.id) if dossier is not None else None
    if job is None or job.state is not JobState.QUEUED or one.into < 2:
        return False
    if (job.slice_index, job.slice_count) != (one.job.slice_index, one.job.slice_count):
        return False
    count = job.slice_count * one.into
    # Where it was answered before, its device type is known already.
    identity: dict[str, Any] = job.identity or {"device_type": one.device_type}
    left = max(job.requests_total - job.requests_done, 0)
    share = -(-left // one.into)
    values = {
        "slice_count": count,
        "identity": identity,
        "requests_done": 0,
        "requests_total": share,
        "benchmarks_done": None,
    }
    guard = update(Job).where(
        col(Job.id) == job.id, col(Job.state) == JobState.QUEUED, col(Job.slice_count) == one.job.slice_count
    )
    if session.connection().execute(guard.values(**values)).rowcount != 1:
        return False
    for number in range(1, one.into):
        session.add(
            Job(
                evaluation_id=job.evaluation_id,
                stage=Stage.INFER,
                state=JobState.QUEUED,
                slice_index=job.slice_index + number * job.slice_count,
                slice_count=count,
                priority=job.priority,
                turn_at=job.turn_at,
                longest=job.longest,
                refused_by=job.refused_by,
                identity=identity,
                requests_total=share,
                created_at=job.created_at,
            )
        )
    session.add(
        Event(at=now, evaluation_id=job.evaluation_id, job_id=job.id, name=JOB_SPLIT, details={"slices": count})
    )
    session.flush()
    return True


def _most_slices(assignment: Assignment, policy: Policy, speeds: Speeds) -> int:
    """Into how many slices the job may be cut, each still worth the start of an engine."""
    job, worker, devices = assignment
    estimate = speeds.of(job, device_key(worker.device, devices))
    if estimate is None:
        return job.requests // policy.slice_requests
    least = max(policy.slice_seconds, 3 * estimate.start.total_seconds())
    return int(estimate.answering.total_seconds() // least)
