"""What infer jobs ask for in common, so that two that run at once do not compute it twice.

Two evaluations overlap where they put the same prompts of a task to the same model identity, and the answers are not
all there yet. Only evaluations whose weights another waiting or running one loads too are read.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from orchestrator.arrows import HELD
from orchestrator.db import chunks
from orchestrator.lifecycle import JobState
from orchestrator.orders import weights_revision
from orchestrator.scheduling.places import QueuedJob, WorkerView
from orchestrator.tables import Evaluation, Job, Submission
from orchestrator.wire import EngineFamily, Stage, identity_digest

MOST_KNOWN = 10_000

_known: dict[tuple[str | None, str], frozenset[str]] = {}
"""What completed attempts at preparing ask: it never changes, and their records are long to read at every round."""


def note_overlaps(
    session: Session, queued: Sequence[QueuedJob], workers: Sequence[WorkerView]
) -> tuple[list[QueuedJob], list[WorkerView]]:
    """The same jobs and workers; where evaluations may overlap, they say what they ask for."""
    waiting = {job.evaluation: job.weights for job in queued if job.stage is Stage.INFER}
    held = _load_held(session) if waiting else {}
    loads = Counter((waiting | held).values())
    shared = {evaluation for evaluation, weights in (waiting | held).items() if loads[weights] > 1}
    if not shared:
        return list(queued), list(workers)
    asks = load_asks(session, shared)
    return (
        [replace(job, asks=asks[job.evaluation]) if job.stage is Stage.INFER else job for job in queued],
        [
            replace(one, answering=tuple((held_by, asks[held_by]) for held_by in one.holding if held_by in held))
            for one in workers
        ],
    )


def load_asks(session: Session, evaluations: Collection[int]) -> defaultdict[int, frozenset[str]]:
    """What evaluations ask of their models and nobody has answered yet; nothing for all others."""
    score = aliased(Job)
    unanswered = select(score.id).where(
        score.evaluation_id == Job.evaluation_id,
        score.benchmark == Job.benchmark,
        score.stage == Stage.SCORE,
        score.state == JobState.BLOCKED,
    )
    listed = sorted(evaluations)
    prepared = (
        select(Job.id, Job.evaluation_id, Job.attempt_id, Evaluation.engine)
        .join(Evaluation, col(Evaluation.id) == Job.evaluation_id)
        .where(
            Job.stage == Stage.PREPARE,
            Job.state == JobState.COMPLETED,
            unanswered.exists(),
        )
    )
    parts = [prepared.where(col(Job.evaluation_id).in_(part)) for part in chunks(listed)]
    # What a re-run took from another evaluation had no attempt of its own.
    rows = [(one[0], one[1], one[2] or f"job {one[0]}", one[3]) for part in parts for one in session.exec(part)]
    known = _known.copy()
    unread = {job: (attempt, engine) for job, _, attempt, engine in rows if (attempt, engine) not in known}
    if unread:
        for part in chunks(list(unread)):
            for job, result in session.exec(select(Job.id, Job.result).where(col(Job.id).in_(part))):
                attempt, engine = unread[job]
                known[attempt, engine] = asks_of(result, EngineFamily(engine))
        _known.update(known)
    if len(_known) > max(MOST_KNOWN, 2 * len(rows)):
        # What is still asked for is kept, or every round would read it again.
        wanted = {(attempt, engine) for _, _, attempt, engine in rows}
        for key in [key for key in _known if key not in wanted]:
            _known.pop(key, None)
    found: defaultdict[int, frozenset[str]] = defaultdict(frozenset)
    for _, evaluation, attempt, engine in rows:
        found[evaluation] |= known.get((attempt, engine), frozenset())
    return found


def asks_of(prepared: Mapping[str, Any], engine: EngineFamily) -> frozenset[str]:
    """What a prepared benchmark asks: model identity (but for the device) and digest of the prompts, for each task."""
    model = identity_digest({**prepared.get("identity", {}), "engine": engine.value})
    tasks = prepared.get("provenance", {}).get("tasks", {})
    return frozenset(f"{model}:{facts['prompts']}" for facts in tasks.values() if facts.get("prompts"))


def _load_held(session: Session) -> dict[int, str]:
    """Evaluations whose inference runs now, with the weights that it loads."""
    statement = (
        select(Job.evaluation_id, Submission.weight_type, Submission.revision, Submission.base_revision)
        .join(Evaluation, col(Evaluation.id) == Job.evaluation_id)
        .join(Submission, col(Submission.id) == Evaluation.submission_id)
        .where(Job.stage == Stage.INFER, col(Job.state).in_(HELD))
    )
    return {evaluation: weights_revision(*columns) for evaluation, *columns in session.exec(statement)}
