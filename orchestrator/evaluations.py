"""What follows for an evaluation when one of its jobs has moved: later stages open or fail, its own state is derived.

Deciding (`consequences`) is pure; `advance` does it in the transaction of the move that caused it. Never touches a job
that an attempt holds.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table, Update, bindparam, inspect, update
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import Session

from orchestrator import arrows, moves
from orchestrator.dossiers import Dossier
from orchestrator.lifecycle import EvaluationState, JobFacts, JobState, evaluation_state
from orchestrator.notices import outbox
from orchestrator.tables import Evaluation, Job
from orchestrator.together import waiting
from orchestrator.wire import FailureKind, Stage

EVALUATION_MOVED = "evaluation_moved"

_EVALUATIONS = cast(Table, inspect(Evaluation).local_table)
NOT_STARTED = (EvaluationState.PLANNED, EvaluationState.QUEUED)


@dataclass(frozen=True)
class Open:
    """A blocked job has what it waited for."""

    job: int
    identity: dict[str, Any] | None = None
    requests: int | None = None
    """Of infer: how many there are to answer, and the tokens of the longest, where the sheets say."""
    longest: int | None = None


@dataclass(frozen=True)
class GiveUp:
    """A waiting job will never have what it needs."""

    job: int
    failure: FailureKind
    sentence: str


def advance(session: Session, dossier: Dossier, *, now: datetime) -> None:
    """Draw the consequences of the jobs' present states, and write the evaluation's own."""
    for step in consequences(dossier.jobs):
        job = dossier.job(step.job)
        assert job is not None
        if isinstance(step, Open):
            arrows.queue(session, job, identity=step.identity, requests=step.requests, longest=step.longest, now=now)
        else:
            arrows.fail_waiting(session, job, failure=step.failure, sentence=step.sentence, now=now)
    _write_state(session, dossier, now=now)


def consequences(jobs: Sequence[Job]) -> list[Open | GiveUp]:
    """What must happen to the waiting jobs of one evaluation."""
    prepares = {job.benchmark: job for job in jobs if job.stage is Stage.PREPARE}
    infers = [job for job in jobs if job.stage is Stage.INFER]
    left_out = not_asked(jobs)
    steps: list[Open | GiveUp] = []
    if all(job.state.is_final for job in prepares.values()):
        for infer in infers:
            if infer.state is JobState.BLOCKED:
                steps.append(_open_infer(infer, [job for job in prepares.values() if job.benchmark not in left_out]))
    # Nothing can be scored any more but what is answered: slices that run seal what they have, others need not begin.
    lost = next((job for job in infers if job.state is JobState.FAILED), None)
    if lost is not None:
        for infer in infers:
            if infer.state is JobState.QUEUED and infer.id is not None:
                steps.append(GiveUp(infer.id, lost.failure or FailureKind.ENGINE, lost.sentence))
    given_up = next((step for step in steps if isinstance(step, GiveUp)), None)
    for score in jobs:
        if score.stage is not Stage.SCORE or score.state is not JobState.BLOCKED:
            continue
        assert score.id is not None
        prepare = prepares[score.benchmark]
        unanswered = _unanswered(infers, score.benchmark)
        if not infers:
            continue  # planned: the re-run decides when it starts, and may carry a score over that needs no sheet
        if prepare.state is JobState.FAILED:
            steps.append(GiveUp(score.id, prepare.failure or FailureKind.HARNESS, prepare.sentence))
        elif unanswered:
            steps.append(GiveUp(score.id, FailureKind.ENGINE, unanswered))
        elif prepare.state is JobState.COMPLETED and is_answered(infers, score.benchmark):
            steps.append(Open(score.id, infers[0].identity))
        elif lost is not None:
            steps.append(GiveUp(score.id, lost.failure or FailureKind.ENGINE, lost.sentence))
        elif given_up is not None:
            steps.append(GiveUp(score.id, given_up.failure, given_up.sentence))
    return steps


def not_asked(jobs: Sequence[Job]) -> set[str]:
    """Prepared benchmarks of which nothing is answered: a re-run carries their score over or leaves them for later."""
    scores = {job.benchmark: job for job in jobs if job.stage is Stage.SCORE}
    carried = {
        name
        for name, job in scores.items()
        if job.state is JobState.COMPLETED and job.result.get("provenance", {}).get("carried")
    }
    return {job.benchmark for job in jobs if job.stage is Stage.PREPARE} - (scores.keys() - carried)


def is_answered(infers: Sequence[Job], benchmark: str) -> bool:
    """Whether every slice has sealed its part of the benchmark's responses."""
    return all(job.state is JobState.COMPLETED or benchmark in (job.benchmarks_done or ()) for job in infers)


def _unanswered(infers: Sequence[Job], benchmark: str) -> str:
    """Why inference, which is complete otherwise, has no answer to some request of the benchmark; empty if it has."""
    for infer in infers:
        if infer.state is JobState.COMPLETED:
            for one in infer.result.get("unanswered", ()):
                if benchmark in one["benchmarks"]:
                    return str(one["sentence"])
    return ""


def _open_infer(infer: Job, prepares: Sequence[Job]) -> Open | GiveUp:
    """Inference starts once every sheet that will be there is there."""
    assert infer.id is not None
    sheets = [job.result for job in prepares if job.state is JobState.COMPLETED]
    if sheets:
        requests = sum(int(sheet.get("requests") or 0) for sheet in sheets)
        longest = max(int(sheet.get("longest") or 0) for sheet in sheets)
        return Open(infer.id, requests=-(-requests // infer.slice_count), longest=longest or None)
    failed = next((job for job in prepares if job.failure), None)
    kind = failed.failure if failed and failed.failure else FailureKind.HARNESS
    first = failed.sentence if failed else ""
    return GiveUp(infer.id, kind, f"No benchmark could be prepared. {first}".strip())


def verdict(jobs: Sequence[Job]) -> tuple[EvaluationState, FailureKind | None, str]:
    """State, class of failure and sentence of an evaluation, from its jobs."""
    state = evaluation_state(JobFacts(stage=job.stage, state=job.state) for job in jobs)
    failed = [job for job in jobs if job.state is JobState.FAILED]
    if not state.is_final and not any(job.stage is Stage.INFER for job in jobs):
        return EvaluationState.PLANNED, None, ""
    if state is EvaluationState.CANCELLED:
        return state, FailureKind.CANCELLED, "Cancelled on request."
    if state is EvaluationState.FAILED:
        infer = [job for job in failed if job.stage is Stage.INFER]
        first = (infer or failed)[0] if failed else None
        return state, first.failure if first else None, first.sentence if first else ""
    lacking = [job for job in failed if job.stage is Stage.SCORE]
    if lacking:
        names = ", ".join(job.benchmark for job in lacking)
        reasons = " ".join(dict.fromkeys(job.sentence for job in lacking if job.sentence))
        return state, None, f"No score for {names}, so there is no average. {reasons}".strip()
    return state, None, ""


def _write_state(session: Session, dossier: Dossier, *, now: datetime) -> None:
    row = dossier.evaluation
    state, failure, sentence = verdict(dossier.jobs)
    values: dict[str, Any] = {"state": state, "failure": failure, "sentence": sentence}
    if row.started_at is None and state not in NOT_STARTED and not state.is_final:
        values["started_at"] = now
    if state is not row.state:
        values["ended_at"] = now if state.is_final else None
        details = {"from": str(row.state), "to": str(state)}
        moves.note(session, EVALUATION_MOVED, now, evaluation=row.id, details=details)
        outbox.note_end(session, row, state, now=now)
    values = {name: value for name, value in values.items() if getattr(row, name) != value}
    if values:
        statement, keyed = _evaluation_update(tuple(values)), {"the_id": row.id} | values
        if (later := waiting(session)) is not None:
            later.add(session, statement, keyed, row=("evaluation", row.id), is_guarded=True)
        else:
            session.connection().execute(statement, keyed)
        for name, value in values.items():
            set_committed_value(row, name, value)


@functools.cache
def _evaluation_update(names: tuple[str, ...]) -> Update:
    """The statement that sets these columns of one evaluation, kept: to put it together takes longer than to run it."""
    guard = update(_EVALUATIONS).where(_EVALUATIONS.c.id == bindparam("the_id"))
    return guard.values({name: bindparam(name) for name in names})
