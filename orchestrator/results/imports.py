"""Takes rows of other boards into the tables: once each, replaced when they change, taken back when they are gone.

An imported row is a finished evaluation of a submission, with its scores and one ended score job for each benchmark, as
a carried-over score has; nothing of it ever waits for a worker. Its key is of its source alone: an equal model that
somebody submits is evaluated here all the same.
"""

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete
from sqlmodel import Session, col, select

from orchestrator.evaluations import EVALUATION_MOVED
from orchestrator.exchange.row import Row
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.suites import Suite
from orchestrator.tables import Evaluation, Event, Job, Score, Source, Submission
from orchestrator.wire import FailureKind, Stage

EVALUATION_IMPORTED = "evaluation_imported"
ATTEMPT = "imported"
"""Stands where a score names its attempt: there was none here."""

Taken = Literal["added", "changed", "unchanged"]


def open_source(session: Session, address: str, *, layout: str, now: datetime) -> Source:
    """The source of this address, made where it is new."""
    source = session.exec(select(Source).where(Source.address == address)).first()
    if source is None:
        source = Source(address=address, layout=layout, read_at=now)
        session.add(source)
        session.flush()
    source.layout = layout
    return source


def row_key(source: Source, suite: Suite, row: Row) -> str:
    """The key of an imported evaluation: the same row of the same source is the same evaluation."""
    told = "\n".join((source.address, suite.name, suite.version, row.identity))
    return f"imported-{hashlib.sha256(told.encode()).hexdigest()[:40]}"


def is_own(session: Session, suite: Suite, row: Row) -> bool:
    """Whether a row that some Evalyard published is an evaluation of this one, which is on its board already."""
    # Compared here: a number that is none of this database's would be refused by it.
    ours = session.exec(
        select(Evaluation.id, Submission.submitted_at)
        .join(Submission, col(Submission.id) == col(Evaluation.submission_id))
        .where(
            col(Evaluation.source_id).is_(None),
            Evaluation.suite == suite.name,
            Submission.model == row.model,
            Submission.revision == row.revision,
        )
    ).all()
    return (row.evaluation, row.submitted_at) in [tuple(one) for one in ours]


def take_row(session: Session, source: Source, suite: Suite, row: Row, *, revision: str, now: datetime) -> Taken:
    """Bring one row of a source up to date. The row was checked against the suite before."""
    assert source.id is not None
    imported = {
        "source": source.shown,
        "layout": source.layout,
        "revision": revision,
        "read_at": now.isoformat(),
        "digest": row.digest,
        "evaluation": row.evaluation,
        "origin": row.origin.model_dump(mode="json") if row.origin is not None else None,
    }
    key = row_key(source, suite, row)
    evaluation = session.exec(select(Evaluation).where(Evaluation.key == key)).first()
    if evaluation is None:
        submission = Submission(**_asked(row, imported), submitted_at=row.submitted_at or now)
        session.add(submission)
        session.flush()
        assert submission.id is not None
        evaluation = Evaluation(
            submission_id=submission.id,
            suite=suite.name,
            suite_version=suite.version,
            engine=row.engine,
            document_limit=row.document_limit,
            key=key,
            source_id=source.id,
            created_at=row.submitted_at or now,
            ended_at=row.ended_at or row.submitted_at or now,
        )
        taken: Taken = "added"
    else:
        submission = session.exec(select(Submission).where(Submission.id == evaluation.submission_id)).one()
        before = submission.facts.get("imported") or {}
        if before.get("digest") == row.digest and evaluation.state is EvaluationState.FINISHED:
            return "unchanged"
        for name, value in _asked(row, imported).items():
            setattr(submission, name, value)
        evaluation.created_at = row.submitted_at or evaluation.created_at
        evaluation.ended_at = row.ended_at or row.submitted_at or evaluation.ended_at
        session.add(submission)
        session.exec(delete(Score).where(col(Score.evaluation_id) == evaluation.id))
        session.exec(delete(Job).where(col(Job.evaluation_id) == evaluation.id))
        taken = "changed"
    evaluation.state, evaluation.failure = EvaluationState.FINISHED, None
    evaluation.average, evaluation.sentence = row.average, _lacking(row)
    evaluation.started_at = row.started_at
    session.add(evaluation)
    session.flush()
    _write_scores(session, evaluation, suite, row, imported=imported, now=now)
    told = {name: value for name, value in imported.items() if value and name not in ("read_at", "origin")}
    session.add(Event(at=now, evaluation_id=evaluation.id, name=EVALUATION_IMPORTED, details=told))
    session.flush()
    return taken


def take_back(session: Session, source: Source, *, kept: Collection[str], now: datetime) -> list[str]:
    """Take what the source no longer has off the board; returns the models' names. It comes back if the source has it.

    Its page stays, says so, and keeps its numbers for whoever has its address.
    """
    rows = session.exec(
        select(Evaluation, Submission)
        .join(Submission, col(Submission.id) == col(Evaluation.submission_id))
        .where(Evaluation.source_id == source.id, Evaluation.state == EvaluationState.FINISHED)
        .order_by(col(Evaluation.id))
    ).all()
    gone = [(evaluation, submission) for evaluation, submission in rows if evaluation.key not in kept]
    for evaluation, _ in gone:
        evaluation.state = EvaluationState.CANCELLED
        evaluation.sentence = f"Its source, {source.shown}, no longer has it."
        session.add(evaluation)
        details = {"from": EvaluationState.FINISHED.value, "to": EvaluationState.CANCELLED.value}
        session.add(Event(at=now, evaluation_id=evaluation.id, name=EVALUATION_MOVED, details=details))
    session.flush()
    return [submission.model for _, submission in gone]


def _asked(row: Row, imported: dict[str, Any]) -> dict[str, Any]:
    """The submission's columns. Whoever asked for it elsewhere is nobody here."""
    facts: dict[str, Any] = {"imported": imported, "on_hub": row.on_hub}
    if row.active_parameters is not None:
        facts["active_parameters"] = row.active_parameters
    if row.flags:
        facts["flags_of_source"] = [flag.model_dump() for flag in row.flags]
    return {
        "model": row.model,
        "revision": row.revision,
        "precision": row.precision,
        "weight_type": row.weight_type,
        "base_model": row.base_model,
        "base_revision": row.base_revision,
        "model_type": row.model_type,
        "chat_template": row.chat_template,
        "architecture": row.architecture,
        "parameters": row.parameters,
        "licence": row.licence,
        "submitter": "imported",
        "facts": facts,
    }


def _write_scores(
    session: Session, evaluation: Evaluation, suite: Suite, row: Row, *, imported: dict[str, Any], now: datetime
) -> None:
    assert evaluation.id is not None
    missing = {one.benchmark: one for one in row.missing}
    has = row.values
    jobs: dict[str, int] = {}
    for benchmark in suite.benchmarks:
        lacks = missing.get(benchmark.name)
        is_there = benchmark.name in has
        job = Job(
            evaluation_id=evaluation.id,
            stage=Stage.SCORE,
            benchmark=benchmark.name,
            state=JobState.COMPLETED if is_there else JobState.FAILED,
            failure=None if is_there else lacks.kind if lacks else FailureKind.HARNESS,
            sentence="" if is_there else _reason(lacks.sentence if lacks else ""),
            created_at=evaluation.created_at,
            ended_at=evaluation.ended_at,
        )
        session.add(job)
        session.flush()
        assert job.id is not None
        jobs[benchmark.name] = job.id
    for one in row.scores:
        own = not one.task and one.metric == "value"
        session.add(
            Score(
                evaluation_id=evaluation.id,
                benchmark=one.benchmark,
                task=one.task,
                metric=one.metric,
                filter=one.filter,
                value=one.value,
                stderr=one.stderr,
                samples=one.samples,
                job_id=jobs[one.benchmark],
                attempt_id=ATTEMPT,
                provenance=row.provenance.get(one.benchmark, {}) | {"imported": imported} if own else {},
                created_at=now,
            )
        )


def _lacking(row: Row) -> str:
    names: Sequence[str] = [one.benchmark for one in row.missing]
    if not names:
        return ""
    reasons = " ".join(dict.fromkeys(_reason(one.sentence) for one in row.missing))
    return f"No score for {', '.join(names)}, so there is no average. {reasons}"


def _reason(sentence: str) -> str:
    return sentence or "Its source has no score of it."
