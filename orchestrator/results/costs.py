"""What answering an evaluation cost: engine time, device time and tokens of every attempt, those that died included.

Adds up what workers said; guesses nothing. An attempt that never said how much it used counts by the time that it held
its devices.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from sqlmodel import Session, col, select

from orchestrator.lifecycle import JobState
from orchestrator.tables import Attempt, Job
from orchestrator.wire import InferDone, Spent

MOST_RESTARTS = 50
"""Sentences kept of the restarts of all slices and attempts together, the last ones: every score repeats them."""


def attempts_of(session: Session, jobs: Sequence[Job]) -> dict[int, list[Attempt]]:
    """Every attempt at these jobs, by job, in the order of their dispatch."""
    found: dict[int, list[Attempt]] = {job.id: [] for job in jobs if job.id is not None}
    statement = select(Attempt).where(col(Attempt.job_id).in_(found)).order_by(col(Attempt.dispatched_at))
    for attempt in session.exec(statement.execution_options(populate_existing=True)):
        found[attempt.job_id].append(attempt)
    return found


def add_up(infers: Sequence[Job], attempts: Mapping[int, Sequence[Attempt]]) -> dict[str, Any]:
    """The cost of an evaluation's infer jobs so far, as plain JSON. Pure.

    `seconds` is engine time, from the first request fed to the last answered; `total_seconds` adds loading;
    `device_seconds` is how long attempts held devices, times their number.
    """
    spent: list[Spent] = []
    device_seconds, earlier, reused = 0.0, 0, 0
    engines: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    unanswered: list[Any] = []
    restarts: list[str] = []
    for job in infers:
        assert job.id is not None
        done = done_of(job)
        before = 0
        for attempt in attempts.get(job.id, ()):
            if done is not None and attempt.id == job.attempt_id:
                continue
            used = spent_by(attempt)
            spent.append(used)
            restarts += attempt.restarts or ()
            before += used.requests
            if attempt.started_at and attempt.ended_at:
                earlier += 1
                device_seconds += (attempt.ended_at - attempt.started_at).total_seconds() * attempt.devices
        if done is None:
            continue
        spent.append(spent_of(done))
        restarts += done.restarts
        reused += max(0, done.reused - before)
        # An engine on a GPU is billed by the seconds that it holds the device, answering or not.
        device_seconds += done.total_seconds * done.engine.device_count
        unanswered += [one.model_dump(mode="json") for one in done.unanswered]
        for kept, said in ((engines, done.engine.model_dump(mode="json")), (settings, done.settings)):
            if said not in kept:
                kept.append(said)
    return {
        "seconds": sum(each.seconds for each in spent),
        "total_seconds": sum(each.total_seconds for each in spent),
        "device_seconds": device_seconds,
        "tokens_computed": sum(each.tokens_computed for each in spent),
        "tokens_reused": sum(each.tokens_reused for each in spent),
        "computed": sum(each.requests for each in spent),
        "reused": reused,
        "earlier_attempts": earlier,
        "restarts": restarts[-MOST_RESTARTS:],
        "engines": engines,
        "settings": settings,
        "unanswered": unanswered,
    }


def done_of(job: Job) -> InferDone | None:
    """What the job's completed attempt reported; None unless it is completed."""
    return InferDone.model_validate(job.result) if job.state is JobState.COMPLETED and job.result else None


def spent_by(attempt: Attempt) -> Spent:
    """What an attempt has used as far as it was told; nothing for one that was made before that was kept."""
    try:
        return Spent.model_validate(attempt.spent or {})
    except ValidationError:
        return Spent()


def spent_of(done: InferDone) -> Spent:
    """What a completed attempt has used."""
    return Spent(
        seconds=done.seconds,
        total_seconds=done.total_seconds,
        tokens_computed=done.tokens_computed,
        tokens_reused=done.tokens_reused,
        requests=done.computed,
    )
