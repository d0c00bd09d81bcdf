"""The queue and the workers as the database has them, as records for the scheduler. Never writes.

What is read does not grow with finished work: only queued jobs, open attempts, workers and the table of speeds, which
has one row for each kind of device, suite and size.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import sqlalchemy
from sqlalchemy import Select, inspect
from sqlmodel import Session, col, select

from orchestrator import breaker
from orchestrator.arrows import HELD
from orchestrator.canaries.admission import read_admission
from orchestrator.canaries.builds import Entry, engine_name, why_kept
from orchestrator.canaries.runs import builds_of
from orchestrator.db import chunks
from orchestrator.doubles import doubles
from orchestrator.footprint import Footprint, footprint
from orchestrator.lifecycle import JobState
from orchestrator.orders import weights_revision
from orchestrator.reruns.holding import is_free, read_holding
from orchestrator.scheduling.estimates import Measure, Speeds
from orchestrator.scheduling.overlaps import note_overlaps
from orchestrator.scheduling.places import Policy, QueuedJob, WorkerView
from orchestrator.scheduling.reasons import Held, reasons
from orchestrator.shares import share_of, within_share
from orchestrator.tables import Attempt, Evaluation, Job, Speed, Submission, SuiteVersion, Worker
from orchestrator.wire import Mode, Precision, Stage

DEFAULT_POLICY = Policy()

STAGES = (Stage.PREPARE, Stage.INFER, Stage.SCORE)
"""Of evaluations. What canaries ask is read where it is named."""


def load_queued(
    session: Session,
    *,
    now: datetime | None = None,
    stages: Iterable[Stage] = STAGES,
    most: int | None = None,
) -> list[QueuedJob]:
    """The queued jobs of these stages, the earliest turn first; with `now`, only those whose pause is over.

    Without those of re-runs that wait for an operator.
    """
    wanted = list(stages)
    statement = _jobs(wanted).where(col(Job.state) == JobState.QUEUED, col(Job.stage).in_(wanted))
    free = is_free(read_holding(session))
    if free is not None:
        statement = statement.where(free)
    if now is not None:
        statement = statement.where(col(Job.not_before).is_(None) | (col(Job.not_before) <= now))
    if most is None:
        rows = list(session.execute(statement))
    else:
        # One stage at a time, so that the index gives the order and the rest of the queue is never read.
        first = statement.order_by(col(Job.turn_at), col(Job.id)).limit(most)
        rows = [row for stage in wanted for row in session.execute(first.where(col(Job.stage) == stage))]
        rows = sorted(rows, key=lambda row: (row.turn_at or row.created_at, row.id))[:most]
    failed_on = _failed_on(session, None if most is None else [row.id for row in rows])
    bound_to = _bound_to(session, {row.evaluation_id for row in rows if row.slice_count > 1})
    needs: dict[Footprint, Footprint] = {}
    harnesses = _harnesses(session) if any(not row.stage.needs_engine for row in rows) else {}
    canaries = [row.id for row in rows if row.stage is Stage.CANARY]
    builds = builds_of(session, canaries) if canaries else {}
    return [
        _as_queued(row, failed_on=failed_on, bound_to=bound_to, needs=needs, harnesses=harnesses, builds=builds)
        for row in rows
    ]


def load_workers(session: Session, *, now: datetime) -> list[WorkerView]:
    """Every known worker with the evaluations whose jobs it holds."""
    suspicions = breaker.suspicions(session, now=now)
    admission = read_admission(session)
    holding: dict[str, list[int]] = defaultdict(list)
    used: dict[str, int] = defaultdict(int)
    held = (
        select(Attempt.worker, Job.evaluation_id, Attempt.devices)
        .join(Job, col(Job.id) == Attempt.job_id)
        .where(col(Attempt.ended_at).is_(None))
    )
    for worker, evaluation, devices in session.exec(held):
        holding[worker].append(evaluation)
        used[worker] += devices
    rows = session.exec(select(Worker)).all()
    seconds = doubles(rows, now=now)
    return [
        WorkerView(
            name=row.name,
            boot=row.boot,
            kind=_kind(row.kind),
            slots=0 if row.name in seconds else _slots(row, suspicions.get(row.name), used=used[row.name]),
            last_heartbeat=row.last_heartbeat,
            engine=row.engine_family,
            device_type=row.device_type,
            device=row.device or "",
            device_count=row.device_count,
            memory_bytes=row.memory_bytes,
            until=row.until,
            stopping=row.stopping,
            # What drifted may be kept out for weeks, too.
            is_open=row.mode is Mode.OPEN and admission.of(row) is not Entry.KEPT_OUT,
            sentence=why_closed(
                row, suspicions.get(row.name), entry=admission.of(row), is_second=seconds.get(row.name, "")
            ),
            holding=tuple(holding[row.name]),
            used=used[row.name],
            weights=tuple(row.weights or ()),
            warm=tuple(row.warm or ()),
            harnesses=tuple(row.harnesses or ()),
            build=row.build if admission.canary_for(row) is not None else "",
            entry=admission.of(row),
            engine_version=row.engine_version or "",
        )
        for row in rows
    ]


def why_closed(worker: Worker, suspicion: breaker.Suspicion | None, *, entry: Entry, is_second: str = "") -> str:
    """Why a worker takes no work, or less than it could; empty when it takes all it can.

    `is_second` is what `orchestrator.doubles` says of it.
    """
    if worker.mode is not Mode.OPEN:
        return f"{worker.mode.value} by an operator"
    if is_second:
        return is_second
    if suspicion:
        return suspicion.sentence
    return why_kept(entry, engine_name(worker.build_facts or {})) or worker.sentence


def _slots(worker: Worker, suspicion: breaker.Suspicion | None, *, used: int) -> int:
    """Slots that jobs may take: none of a closed worker, and one job's of one that is on trial."""
    if worker.mode is not Mode.OPEN or (suspicion and suspicion.held_back):
        return 0
    return min(worker.slots, used) if suspicion and used else worker.slots


def load_held(session: Session) -> list[Held]:
    """The jobs that workers have now, with the requests that are left of each."""
    statement = (
        _jobs([Stage.INFER])
        .add_columns(col(Attempt.worker), col(Attempt.devices))
        .join(Attempt, col(Attempt.id) == Job.attempt_id)
        .where(col(Job.state).in_(HELD), col(Attempt.ended_at).is_(None))
    )
    needs: dict[Footprint, Footprint] = {}
    return [
        Held(_as_queued(row, failed_on={}, bound_to={}, needs=needs, harnesses={}, builds={}), row.worker, row.devices)
        for row in session.execute(statement)
    ]


def load_speeds(session: Session) -> Speeds:
    """Everything that was measured."""
    return Speeds(
        Measure(
            engine=row.engine,
            device=row.device,
            suite=row.suite,
            size_class=row.size_class,
            runs=row.runs,
            requests=row.requests,
            engine_seconds=row.engine_seconds,
            start_seconds=row.start_seconds,
        )
        for row in session.exec(select(Speed))
    )


def waiting_reasons(
    session: Session, now: datetime, *, policy: Policy = DEFAULT_POLICY, stages: Iterable[Stage] = STAGES
) -> dict[int, str]:
    """Why each queued job waits, by job id: for the queue page and `evalyard status`."""
    everyone = load_workers(session, now=now)
    share = share_of(everyone, policy, now)
    queued, workers = note_overlaps(session, load_queued(session, stages=stages), within_share(everyone, share))
    found = reasons(queued, workers, policy, now, speeds=load_speeds(session), held=load_held(session))
    if share is not None:
        for job in queued:
            if job.stage is Stage.INFER and (not share.room or share.is_too_small(job, everyone)):
                found[job.id] = f"{found[job.id]} {share.sentence}"
    return found


def _jobs(stages: Collection[Stage]) -> Select[Any]:
    # Not sqlmodel's select, which is typed for up to four columns.
    jobs, evaluations, submissions = (inspect(table).local_table.c for table in (Job, Evaluation, Submission))
    return (
        sqlalchemy.select(
            jobs.id,
            jobs.evaluation_id,
            jobs.stage,
            jobs.created_at,
            jobs.turn_at,
            jobs.not_before,
            jobs.identity,
            jobs.slice_index,
            jobs.slice_count,
            jobs.refused_by,
            jobs.longest,
            jobs.requests_done,
            jobs.requests_total,
            evaluations.engine,
            evaluations.suite,
            evaluations.suite_version,
            submissions.weight_type,
            submissions.revision,
            submissions.base_revision,
            submissions.precision,
            submissions.parameters,
            # Long to read, and only inference depends on it.
            submissions.facts if any(one.needs_engine for one in stages) else sqlalchemy.null().label("facts"),
        )
        .join(Evaluation, evaluations.id == jobs.evaluation_id)
        .join(Submission, submissions.id == evaluations.submission_id)
    )


def _as_queued(
    row: Any,
    *,
    failed_on: dict[int, set[str]],
    bound_to: dict[int, str],
    needs: dict[Footprint, Footprint],
    harnesses: Mapping[tuple[str, str], str],
    builds: Mapping[int, str],
) -> QueuedJob:
    common: dict[str, Any] = {
        "id": row.id,
        "evaluation": row.evaluation_id,
        "stage": row.stage,
        "engine": row.engine,
        "created_at": row.created_at,
        "turn_at": row.turn_at,
        "not_before": row.not_before,
        "suite": row.suite,
        "failed_on": frozenset(failed_on.get(row.id, ())),
        "refused_by": frozenset((worker, str(said.get("boot"))) for worker, said in (row.refused_by or {}).items()),
    }
    if not row.stage.needs_engine:
        return QueuedJob(**common, requests=1, harness=harnesses.get((row.suite, row.suite_version), ""))
    need = need_of(row.facts, row.precision)
    others = bound_to.get(row.evaluation_id)
    return QueuedJob(
        **common,
        device_type=others or row.identity.get("device_type"),
        bound=others is not None,
        weights=weights_revision(row.weight_type, row.revision, row.base_revision),
        need=needs.setdefault(need, need) if need is not None else None,
        longest=row.longest or row.facts.get("context_limit"),
        parameters=row.facts.get("active_parameters") or row.parameters,
        requests=max(row.requests_total - row.requests_done, 0),
        slice_index=row.slice_index,
        slice_count=row.slice_count,
        # One that is for no build fits nowhere.
        canary_on=builds.get(row.id, "none") if row.stage is Stage.CANARY else "",
    )


def need_of(facts: dict[str, Any], precision: Precision) -> Footprint | None:
    """What a submission's facts say of its model's size; None where they do not say enough."""
    config, stored = facts.get("config"), facts.get("weight_bytes")
    return footprint(config, precision, stored) if isinstance(config, dict) and config and stored else None


def _harnesses(session: Session) -> dict[tuple[str, str], str]:
    """Which harness each suite version is run with; of one that was never recorded any will do."""
    harness = col(SuiteVersion.record)["harness"].as_string()
    statement = select(SuiteVersion.suite, SuiteVersion.version, harness)
    return {(suite, version): found or "" for suite, version, found in session.exec(statement)}


def _failed_on(session: Session, jobs: Sequence[int] | None) -> dict[int, set[str]]:
    """Workers on which attempts of queued jobs failed, by job; of all queued jobs where none are named."""
    found: dict[int, set[str]] = defaultdict(set)
    statement = (
        select(Attempt.job_id, Attempt.worker)
        .join(Job, col(Job.id) == Attempt.job_id)
        .where(Job.state == JobState.QUEUED, col(Attempt.outcome).in_(("failed", "expired")))
    )
    parts = [statement] if jobs is None else [
        statement.where(col(Attempt.job_id).in_(part)) for part in chunks(jobs)
    ]  # fmt: skip
    for part in parts:
        for job, worker in session.exec(part):
            found[job].add(worker)
    return found


def _bound_to(session: Session, evaluations: set[int]) -> dict[int, str]:
    """The type of device on which other slices of these evaluations are answered, or were."""
    found: dict[int, str] = {}
    listed = sorted(evaluations)
    for part in chunks(listed):
        statement = select(Job.evaluation_id, Job.identity).where(
            Job.stage == Stage.INFER,
            col(Job.state).in_((*HELD, JobState.COMPLETED)),
            col(Job.evaluation_id).in_(part),
        )
        for evaluation, identity in session.exec(statement):
            if identity.get("device_type"):
                found[evaluation] = identity["device_type"]
    return found


def _kind(kind: str) -> Literal["harness", "engine"]:
    return "engine" if kind == "engine" else "harness"
