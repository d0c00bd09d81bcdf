"""What a score must remember so that it can be doubted later: model, suite, harness, sheet, engine, cost. Pure records.

Whatever the stages report about themselves is kept as they said it, under the stage's name; nothing is left out and
nothing is guessed.
"""

import math
from collections.abc import Sequence
from typing import Any

import sqlalchemy
from sqlmodel import Session, col

from orchestrator.lifecycle import JobState
from orchestrator.results.costs import add_up, attempts_of
from orchestrator.suites import Suite
from orchestrator.tables import Attempt, Evaluation, Job, Submission, Worker
from orchestrator.wire import ScoreDone, identity_digest

FORMAT = 1


def describe_score(
    session: Session,
    *,
    submission: Submission,
    evaluation: Evaluation,
    suite: Suite,
    job: Job,
    attempt: str,
    prepare: Job,
    infers: Sequence[Job],
    done: ScoreDone,
) -> dict[str, Any]:
    """The provenance of a benchmark's own rows, as plain JSON."""
    benchmark = suite.benchmark(job.benchmark)
    sheet = prepare.result
    attempts = _attempts(session, infers)
    versions = engine_versions(done, attempts)
    record: dict[str, Any] = finite(
        {
            "format": FORMAT,
            "model": {
                "name": submission.model,
                "revision": submission.revision,
                "precision": submission.precision.value,
                "weight_type": submission.weight_type,
                "base_model": submission.base_model,
                "base_revision": submission.base_revision,
                "chat_template": submission.chat_template,
            },
            # Several versions mean that the score is of mixed origin.
            "engine_version": ", ".join(versions),
            "engine_versions_differ": len(versions) > 1,
            "identity": job.identity,
            "identity_digest": identity_digest(job.identity),
            "suite": {"name": suite.name, "version": suite.version, "harness": suite.harness},
            "benchmark": benchmark.model_dump(mode="json"),
            "document_limit": evaluation.document_limit,
            "prepare": {
                "sheet": sheet.get("sheet"),
                "digest": sheet.get("digest"),
                "requests": sheet.get("requests"),
                "documents": sheet.get("documents"),
                "truncated": sheet.get("truncated"),
            },
            "infer": {
                "engine": evaluation.engine.value,
                "attempts": attempts,
                "cost": describe_cost(session, infers),
            },
            # Score repeats what prepare found, from the sheet itself.
            "score": {"results": done.results, "attempt": attempt, **sheet.get("provenance", {}), **done.provenance},
        }
    )
    return record


def engine_versions(done: ScoreDone, attempts: list[dict[str, Any]]) -> list[str]:
    """Every engine version behind the responses: as the used segments say, or as the workers said in heartbeats."""
    said = [engine.get("version") for engine in done.provenance.get("engines", []) if isinstance(engine, dict)]
    found = {str(version) for version in said if version}
    return sorted(found or {str(attempt["engine_version"]) for attempt in attempts if attempt["engine_version"]})


def finite(value: Any) -> Any:
    """The same JSON without what PostgreSQL cannot hold, or refuses as soon as a query looks into it, keys too.

    NaN and infinities become null; zero characters and halves of surrogate pairs a sign that something is missing.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {finite(str(key)): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def describe_cost(session: Session, infers: Sequence[Job]) -> dict[str, Any] | None:
    """What answering cost, for all benchmarks of the evaluation together; None before every slice is answered."""
    if any(job.state is not JobState.COMPLETED for job in infers):
        return None
    cost: dict[str, Any] = finite(add_up(infers, attempts_of(session, infers)))
    return cost


def _attempts(session: Session, infers: Sequence[Job]) -> list[dict[str, Any]]:
    """Every attempt at the infer jobs so far: where and when, in order."""
    slices = {job.id: job.slice_index for job in infers}
    # Not whole rows: this is read with every score.
    statement = (
        sqlalchemy.select(
            col(Attempt.id),
            col(Attempt.job_id),
            col(Attempt.worker),
            col(Attempt.devices),
            col(Attempt.started_at),
            col(Attempt.ended_at),
            col(Attempt.outcome),
            col(Worker.engine_version),
            col(Worker.device),
        )
        .join(Worker, col(Worker.name) == Attempt.worker, isouter=True)
        .where(col(Attempt.job_id).in_(slices))
        .order_by(col(Attempt.dispatched_at))
    )
    return [
        {
            "attempt": row.id,
            "slice": slices[row.job_id],
            "worker": row.worker,
            "engine_version": row.engine_version,
            "device": row.device,
            "devices": row.devices,
            "started_at": row.started_at.isoformat() if row.started_at else None,
            "ended_at": row.ended_at.isoformat() if row.ended_at else None,
            "outcome": row.outcome,
        }
        for row in session.execute(statement)
    ]
