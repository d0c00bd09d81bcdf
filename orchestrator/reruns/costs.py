"""What a plan will cost: evaluations, device time from measured speeds, CPU time, bytes. Reads; never writes.

Nothing is guessed: where no speed was measured, the number of evaluations without one is said instead.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy
from sqlmodel import Session, col, select

from orchestrator.lifecycle import JobState
from orchestrator.orders import weights_revision
from orchestrator.reruns.compare import VerdictKind
from orchestrator.reruns.coverage import is_planned
from orchestrator.reruns.findings import Finding, own_class, read_findings, sheet_class
from orchestrator.roster import load_speeds
from orchestrator.scheduling.estimates import size_class
from orchestrator.scheduling.places import QueuedJob
from orchestrator.tables import Evaluation, Job, Rerun, Speed, Submission, SuiteVersion
from orchestrator.wire import EngineFamily, Stage

SAMPLE_REQUESTS = 10_000
"""So many requests a speed is asked for: durations are kept to the microsecond."""


@dataclass(frozen=True)
class Estimate:
    """A plan in numbers."""

    evaluations: int = 0
    carried: int = 0
    """Evaluations of which every score carries over."""
    scored: int = 0
    """Those that are scored again from stored responses, and need no device."""
    inferred: int = 0
    """Those with new requests."""
    cells: Mapping[str, int] = field(default_factory=dict)
    """Scores by verdict; `unknown` where a benchmark has no sheet to compare with, or none could be made."""
    new_requests: int = 0
    new_tokens: int = 0
    device_seconds: float = 0.0
    """Of the evaluations for which a speed was measured."""
    unmeasured: int = 0
    """Evaluations with new requests for which none was."""
    cpu_seconds: float = 0.0
    unmeasured_stages: int = 0
    """Jobs of the harness for which no speed was measured."""
    weight_bytes: int = 0
    """Of the weights that must be loaded; downloaded where a host has them not."""

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def estimate(session: Session, rerun: Rerun) -> Estimate:
    """What is to be done for every evaluation that the plan covers."""
    findings = read_findings(session, rerun)
    row = session.get(SuiteVersion, (rerun.suite, rerun.to_version))
    assert row is not None
    wanted = [str(one["name"]) for one in row.record["benchmarks"]]
    classes = _classes(session, rerun)
    work = _Work(session, rerun)
    for evaluation, named in classes.items():
        found = {name: findings.get((named[name], name)) if name in named else None for name in wanted}
        if rerun.only is not None:
            found = {
                name: one
                for name, one in found.items()
                if name in rerun.only or (one is not None and one.kind is VerdictKind.SAME)
            }
        work.add(evaluation, found)
    return work.total()


class _Work:
    """Adds up what evaluations need."""

    def __init__(self, session: Session, rerun: Rerun) -> None:
        self.session, self.rerun = session, rerun
        self.cells: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.stages: Counter[tuple[EngineFamily, Stage]] = Counter()
        self.requests: dict[tuple[EngineFamily, int], list[int]] = defaultdict(list)
        self.new_requests = self.new_tokens = 0
        self.weights: dict[str, int] = {}
        self.models = _models(session, rerun)

    def add(self, evaluation: int, found: Mapping[str, Finding | None]) -> None:
        engine, parameters, weights, weight_bytes = self.models[evaluation]
        self.cells.update(one.kind.value if one else "unknown" for one in found.values())
        new = sum(one.new_requests for one in found.values() if one and one.prepared is not None)
        self.new_requests += new
        self.new_tokens += sum(one.new_tokens for one in found.values() if one and one.prepared is not None)
        # What a benchmark without a sheet will ask is not known before it is prepared.
        self.stages[engine, Stage.PREPARE] += sum(1 for one in found.values() if one is None)
        self.stages[engine, Stage.SCORE] += sum(
            1
            for one in found.values()
            if one is None or (one.kind is not VerdictKind.SAME and one.prepared is not None)
        )
        known = [one for one in found.values() if one is None or one.kind is not VerdictKind.UNKNOWN]
        if not known:
            self.kinds["unknown"] += 1
        elif new or any(one is None for one in known):
            self.kinds["inferred"] += 1
            self.requests[engine, size_class(parameters)].append(new)
            self.weights[weights] = weight_bytes
        elif all(one is not None and one.kind is VerdictKind.SAME for one in known):
            self.kinds["carried"] += 1
        else:
            self.kinds["scored"] += 1

    def total(self) -> Estimate:
        device, unmeasured = self._device_seconds()
        cpu, stages = self._cpu_seconds()
        return Estimate(
            evaluations=sum(self.kinds.values()),
            carried=self.kinds["carried"],
            scored=self.kinds["scored"],
            inferred=self.kinds["inferred"],
            cells=dict(self.cells),
            new_requests=self.new_requests,
            new_tokens=self.new_tokens,
            device_seconds=device,
            unmeasured=unmeasured,
            cpu_seconds=cpu,
            unmeasured_stages=stages,
            weight_bytes=sum(self.weights.values()),
        )

    def _device_seconds(self) -> tuple[float, int]:
        """On the kind of device on which most of that engine was measured."""
        speeds = load_speeds(self.session)
        devices = _devices(self.session)
        seconds, unmeasured = 0.0, 0
        for (engine, size), requests in self.requests.items():
            job = QueuedJob(
                id=0,
                evaluation=0,
                stage=Stage.INFER,
                engine=engine,
                created_at=datetime.fromtimestamp(0, UTC),
                suite=self.rerun.suite,
                parameters=2**size if size >= 0 else None,
                requests=SAMPLE_REQUESTS,
            )
            found = next((one for device in devices.get(engine, ()) if (one := speeds.of(job, device))), None)
            if found is None:
                unmeasured += len(requests)
                continue
            each = found.answering.total_seconds() / SAMPLE_REQUESTS
            seconds += found.start.total_seconds() * len(requests) + each * sum(requests)
        return seconds, unmeasured

    def _cpu_seconds(self) -> tuple[float, int]:
        measured: dict[tuple[EngineFamily, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for row in self.session.exec(select(Speed).where(col(Speed.device).in_([stage.value for stage in Stage]))):
            for engine in EngineFamily:
                # A suite that was not measured yet is taken to be like the others.
                weight = 1.0 if (row.suite, row.engine) == (self.rerun.suite, engine) else 1e-6
                measured[engine, row.device][0] += row.engine_seconds * weight
                measured[engine, row.device][1] += row.runs * weight
        seconds, unmeasured = 0.0, 0
        for (engine, stage), number in self.stages.items():
            total, runs = measured[engine, stage.value]
            if runs:
                seconds += number * total / runs
            else:
                unmeasured += number
        return seconds, unmeasured


def _classes(session: Session, rerun: Rerun) -> dict[int, dict[str, str]]:
    """The class of each sheet of every covered evaluation."""
    found: dict[int, dict[str, str]] = {
        evaluation: {}
        for evaluation in session.exec(select(Evaluation.id).where(is_planned(rerun.suite, rerun.from_version)))
        if evaluation is not None
    }
    rows = session.execute(
        select(col(Job.evaluation_id), col(Job.benchmark), sheet_class())
        .join(Evaluation, col(Evaluation.id) == Job.evaluation_id)
        .where(
            is_planned(rerun.suite, rerun.from_version),
            col(Job.stage) == Stage.PREPARE,
            col(Job.state) == JobState.COMPLETED,
        )
    )
    for evaluation, benchmark, named in rows:
        if evaluation in found:
            found[evaluation][benchmark] = named or own_class(evaluation)
    return found


def _models(session: Session, rerun: Rerun) -> dict[int, tuple[EngineFamily, int | None, str, int]]:
    """Engine, weights that a token meets, commit of the weights and their bytes, by evaluation."""
    facts = col(Submission.facts)
    rows = session.execute(
        sqlalchemy.select(
            col(Evaluation.id),
            col(Evaluation.engine),
            facts["active_parameters"].as_string(),
            col(Submission.parameters),
            col(Submission.weight_type),
            col(Submission.revision),
            col(Submission.base_revision),
            facts["weight_bytes"].as_string(),
        )
        .join(Submission, col(Submission.id) == col(Evaluation.submission_id))
        .where(is_planned(rerun.suite, rerun.from_version))
    )
    return {
        id: (engine, _number(active) or parameters, weights_revision(kind, revision, base), _number(weight_bytes) or 0)
        for id, engine, active, parameters, kind, revision, base, weight_bytes in rows
    }


def _number(text: str | None) -> int | None:
    """A number of a JSON column: read as text, as PostgreSQL's integers end at two thousand million."""
    return int(float(text)) if text else None


def _devices(session: Session) -> dict[EngineFamily, list[str]]:
    """Kinds of devices by how much of each engine was measured on them, the most first."""
    counted: dict[EngineFamily, Counter[str]] = defaultdict(Counter)
    stages = {stage.value for stage in Stage}
    for row in session.exec(select(Speed)):
        if row.device not in stages:
            counted[row.engine][row.device] += row.requests
    return {engine: [device for device, _ in found.most_common()] for engine, found in counted.items()}
