"""Rows for tests of pages, API and command line: real tables in a real database, only what matters given."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import zstandard
from sqlalchemy import make_url
from sqlmodel import Session, select

from orchestrator import jobs
from orchestrator.artifacts import ArtifactStore, slug
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.settings import HubSettings
from orchestrator.suites import Suite
from orchestrator.tables import Attempt, Evaluation, Event, Job, Score, Submission, Worker
from orchestrator.wire import EngineFamily, FailureKind, Precision, Spent, Stage
from submissions.context import Hub, open_hub
from tests.migrated import migrated_sqlite

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
DEMO = {"Letters": 80.0, "Stories": 60.0, "Sums": 40.0}
"""Values of the demo's benchmarks; their average is 60."""


def make_hub(folder: Path, **settings: Any) -> Hub:
    """A hub with a database and an artifact store of its own, on the scripted engine; one that is there is kept."""
    made = HubSettings(data=folder, **({"engine": EngineFamily.SCRIPTED} | settings))
    file = make_url(made.database_url).database
    if made.database_url.startswith("sqlite") and file and not Path(file).exists():
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_bytes(migrated_sqlite())
    return open_hub(made)


def add_evaluation(
    session: Session,
    suite: Suite,
    *,
    model: str = "acme/model-1b",
    values: Mapping[str, float] | None = None,
    state: EvaluationState = EvaluationState.FINISHED,
    stderr: float | None = 1.0,
    limit: int | None = None,
    suite_version: str | None = None,
    at: datetime = NOON,
    failure: FailureKind | None = None,
    sentence: str = "",
    log_tail: str = "",
    requests: tuple[int, int] = (0, 0),
    waits: bool = False,
    **submission: Any,
) -> Evaluation:
    """An evaluation in the given state; `values` are its benchmarks' values, 0 to 100.

    With `waits` no worker has taken its infer job yet.
    """
    facts: dict[str, Any] = {
        "revision": hashlib.sha1(model.encode(), usedforsecurity=False).hexdigest(),
        "precision": Precision.BFLOAT16,
        "parameters": 1_100_000_000,
        "architecture": "LlamaForCausalLM",
        "licence": "apache-2.0",
    } | submission
    asked = Submission(model=model, submitted_at=at, **facts)
    session.add(asked)
    session.flush()
    values = values or {}
    names = [benchmark.name for benchmark in suite.benchmarks]
    whole = state is EvaluationState.FINISHED and set(values) >= set(names)
    evaluation = Evaluation(
        submission_id=asked.id or 0,
        suite=suite.name,
        suite_version=suite_version or suite.version,
        engine=EngineFamily.VLLM,
        document_limit=limit,
        key=f"{asked.id}-{model}"[:200],
        average=sum(values[name] for name in names) / len(names) if whole else None,
        created_at=at,
    )
    session.add(evaluation)
    session.flush()
    jobs.create_jobs(session, evaluation, names)
    evaluation.state = state
    evaluation.failure = failure
    evaluation.sentence = sentence
    if state.is_final:
        evaluation.ended_at = at + timedelta(minutes=40)
    for job in session.exec(select(Job).where(Job.evaluation_id == evaluation.id)).all():
        _settle(session, job, evaluation, values=values, stderr=stderr, log_tail=log_tail, requests=requests, at=at)
        if job.stage is Stage.INFER and waits:
            job.state, job.phase = JobState.QUEUED, ""
    session.flush()
    return evaluation


def _settle(
    session: Session,
    job: Job,
    evaluation: Evaluation,
    *,
    values: Mapping[str, float],
    stderr: float | None,
    log_tail: str,
    requests: tuple[int, int],
    at: datetime,
) -> None:
    if evaluation.state in (EvaluationState.RUNNING, EvaluationState.SCORING) and job.stage is not Stage.SCORE:
        job.state = JobState.COMPLETED if job.stage is Stage.PREPARE else JobState.RUNNING
        job.requests_done, job.requests_total = requests
        job.phase = "answering" if job.stage is Stage.INFER else ""
    if evaluation.state is EvaluationState.FAILED:
        job.state = JobState.FAILED
        job.failure, job.sentence, job.log_tail = evaluation.failure, evaluation.sentence, log_tail
    if evaluation.state is EvaluationState.CANCELLED:
        job.state = JobState.CANCELLED
    if evaluation.state is EvaluationState.FINISHED:
        job.state = JobState.COMPLETED if not job.benchmark or job.benchmark in values else JobState.FAILED
        if job.state is JobState.FAILED:
            job.failure, job.sentence = FailureKind.DATASET, f"The dataset of {job.benchmark} is missing."
            job.log_tail = log_tail
    session.add(job)
    if job.stage is not Stage.SCORE or job.benchmark not in values:
        return
    job.result = {"stage": "score", "results": f"results/{evaluation.id}/{slug(job.benchmark)}/attempt-1"}
    value = values[job.benchmark]
    for task, metric, number, error in (
        (f"task_{slug(job.benchmark).lower()}", "acc", value / 100, (stderr or 0) / 100),
        ("", "raw", value * 0.8 + 20, None),
        ("", "value", value, stderr),
    ):
        session.add(
            Score(
                evaluation_id=evaluation.id or 0,
                benchmark=job.benchmark,
                task=task,
                metric=metric,
                filter="none" if task else "",
                value=number,
                stderr=error,
                samples=100,
                job_id=job.id or 0,
                attempt_id="attempt-1",
                provenance={} if task else PROVENANCE,
                created_at=at,
            )
        )


PROVENANCE: dict[str, Any] = {
    "engine_version": "0.32.0+cpu",
    "identity": {"device_type": "cpu", "context_limit": 4096},
    "score": {"packages": {"lm_eval": "0.4.13", "transformers": "5.19.0"}},
    "lm_eval_version": "0.4.13",
    "seeds": {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234},
    "num_fewshot": 5,
    "dataset_revisions": {"acme/questions": "0123456789abcdef"},
    "prompt_hash": "9f2c1d",
    "gpu_seconds": 812.4,
}


def keep_samples(hub: Hub, evaluation: int, benchmark: str, *, task: str, records: list[dict[str, Any]]) -> None:
    """Put a samples file where the score job of `add_evaluation` says it is."""
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    key = f"results/{evaluation}/{slug(benchmark)}/attempt-1/samples_{task}.jsonl.zst"
    ArtifactStore(hub.settings.artifacts_url).put_bytes(key, zstandard.ZstdCompressor().compress(lines))


def choice_sample(number: int, *, right: bool = True) -> dict[str, Any]:
    """A letter-choice record in lm-eval's layout."""
    question = f"Question {number}: which of these is a fruit?\nA. stone\nB. apple\nC. river\nD. chair\nAnswer:"
    likelihoods = [-4.1, -0.3 if right else -5.2, -3.3, -2.8]
    return {
        "doc_id": number,
        "doc": {"question": question},
        "target": "1",
        "arguments": {f"gen_args_{i}": {"arg_0": question, "arg_1": f" {letter}"} for i, letter in enumerate("ABCD")},
        "resps": [[[str(value), "False"]] for value in likelihoods],
        "filtered_resps": [[str(value), "False"] for value in likelihoods],
        "filter": "none",
        "metrics": ["acc"],
        "acc": 1.0 if right else 0.0,
    }


def add_attempt(session: Session, job: Job, *, at: datetime = NOON, minutes: float = 1, **facts: Any) -> Attempt:
    """An attempt at a job; it has ended unless `outcome` is empty."""
    ended_at = at + timedelta(minutes=minutes) if facts.setdefault("outcome", "completed") else None
    fields = {"worker": "engine-1", "boot": "b1", "dispatched_at": at, "started_at": at, "ended_at": ended_at} | facts
    number = len(session.exec(select(Attempt)).all()) + 1
    attempt = Attempt(id=f"attempt-{number}", job_id=job.id or 0, lease_until=at, **fields)
    session.add(attempt)
    session.flush()
    return attempt


def add_worker(session: Session, name: str, *, kind: str, now: datetime, **facts: Any) -> None:
    session.add(Worker(name=name, kind=kind, boot="b1", last_heartbeat=now, reported_at=now, first_seen=now, **facts))


def disturb(session: Session, evaluation: int) -> None:
    """Give the evaluation's infer job two attempts: one that was released after a restart, one that went on."""
    infer = session.exec(select(Job).where(Job.evaluation_id == evaluation, Job.stage == Stage.INFER)).one()
    spent = Spent(seconds=90, total_seconds=100, tokens_computed=1200, tokens_reused=34, requests=7)
    again = ["The engine was killed. Starting it again."]
    released = {"outcome": "released", "sentence": "The GPU is wanted.", "restarts": again, "minutes": 3}
    add_attempt(session, infer, spent=spent.model_dump(), **released)
    add_attempt(session, infer, worker="engine-2", at=NOON + timedelta(minutes=5), outcome="", spent=spent.model_dump())


def rows(hub: Hub) -> list[int]:
    """Numbers of submissions, evaluations, jobs and events."""
    with hub.reading() as session:
        return [len(session.exec(select(table)).all()) for table in (Submission, Evaluation, Job, Event)]  # type: ignore[call-overload]
