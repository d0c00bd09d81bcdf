"""Keeps how fast inference and the harness's stages were, as sums that do not grow with history.

One row for each engine, kind of device, suite and size of model; a stage of the harness is measured in jobs of its
suite, under its name in place of a device. Runs in the transaction that completes the job.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from orchestrator.scheduling.estimates import device_key, size_class
from orchestrator.tables import Attempt, Evaluation, Job, Speed, Submission
from orchestrator.wire import Done, InferDone, Stage

LEAST_REQUESTS = 100
"""An attempt that computed fewer tells of its start and not of its speed."""


def note_speed(session: Session, job: Job, done: Done, *, now: datetime) -> None:
    """Add what the completed attempt of this job measured, if it measured anything."""
    attempt = session.exec(select(Attempt).where(Attempt.id == job.attempt_id)).one()
    evaluation, submission = session.exec(
        select(Evaluation, Submission)
        .join(Submission, col(Submission.id) == Evaluation.submission_id)
        .where(Evaluation.id == job.evaluation_id)
    ).one()
    if isinstance(done, InferDone):
        if done.computed < LEAST_REQUESTS or not 0 < done.seconds <= done.total_seconds < float("inf"):
            return
        where = device_key(done.engine.device, max(attempt.devices, 1))
        size = size_class(submission.facts.get("active_parameters") or submission.parameters)
        measured = (done.computed, done.tokens_computed, done.seconds, done.total_seconds - done.seconds)
    else:
        seconds = (now - (attempt.started_at or attempt.dispatched_at)).total_seconds()
        if seconds <= 0:
            return
        where, size, measured = Stage(job.stage).value, -1, (1, 0, seconds, 0.0)
    key = {"engine": evaluation.engine, "device": where, "suite": evaluation.suite, "size_class": size}
    _add(session, key, measured)


def _add(session: Session, key: dict[str, Any], measured: tuple[int, int, float, float]) -> None:
    requests, tokens, seconds, start = measured
    is_row = [col(getattr(Speed, name)) == value for name, value in key.items()]
    added = update(Speed).where(*is_row).values(
        runs=Speed.runs + 1,
        requests=Speed.requests + requests,
        tokens=Speed.tokens + tokens,
        engine_seconds=Speed.engine_seconds + seconds,
        start_seconds=Speed.start_seconds + start,
    )  # fmt: skip
    if session.connection().execute(added).rowcount:
        return
    try:
        with session.begin_nested():
            session.add(
                Speed(**key, runs=1, requests=requests, tokens=tokens, engine_seconds=seconds, start_seconds=start)
            )
    except IntegrityError:
        # Another transaction made the row in between.
        session.connection().execute(added)
