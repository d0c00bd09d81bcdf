"""Decides which queued job goes to which worker, and says why the others wait. Pure: reads no clock and no rows.

Higher priority first, then the older evaluation, then the earlier stage. Only live workers of the fitting kind and
engine family count, and never more jobs than a worker has free slots.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from orchestrator.wire import EngineFamily, Stage


@dataclass(frozen=True)
class QueuedJob:
    id: int
    evaluation: int
    stage: Stage
    engine: EngineFamily
    """Engine family of its evaluation; only infer needs it."""
    created_at: datetime
    priority: int = 0
    not_before: datetime | None = None
    device_type: str | None = None
    """Where earlier attempts answered: their responses are known only there."""


@dataclass(frozen=True)
class WorkerView:
    name: str
    boot: str
    kind: Literal["harness", "engine"]
    slots: int
    last_heartbeat: datetime
    engine: EngineFamily | None = None
    device_type: str | None = None
    stopping: bool = False
    holding: tuple[int, ...] = ()
    """Evaluations whose jobs it holds now, one entry for each job."""

    @property
    def free_slots(self) -> int:
        return max(self.slots - len(self.holding), 0)


@dataclass(frozen=True)
class Policy:
    silent_after: timedelta = timedelta(seconds=30)
    """A worker whose last heartbeat is older gets no new job."""


class Assignment(NamedTuple):
    job: QueuedJob
    worker: WorkerView


class Pool(NamedTuple):
    """Workers that can do the same jobs."""

    kind: Literal["harness", "engine"]
    engine: EngineFamily | None = None

    def __str__(self) -> str:
        return f"{self.engine.value} engine worker" if self.engine else f"{self.kind} worker"


@dataclass
class _Free:
    """The free slots of one pool, taken from the worker that has most of them."""

    heap: list[tuple[int, str, WorkerView]] = field(default_factory=list)

    def add(self, worker: WorkerView, slots: int) -> None:
        if slots > 0:
            heapq.heappush(self.heap, (-slots, worker.name, worker))

    def take(self, device_type: str | None) -> WorkerView:
        """A worker, of that device type if one is free."""
        fitting = [entry for entry in self.heap if entry[2].device_type == device_type] if device_type else []
        if fitting:
            slots, _, worker = min(fitting, key=lambda entry: entry[:2])
            self.heap.remove((slots, worker.name, worker))
            heapq.heapify(self.heap)
        else:
            slots, _, worker = heapq.heappop(self.heap)
        self.add(worker, -slots - 1)
        return worker


def plan(queued: Iterable[QueuedJob], workers: Iterable[WorkerView], policy: Policy, now: datetime) -> list[Assignment]:
    """Which jobs to give to which workers now, the most urgent first."""
    free: dict[Pool, _Free] = defaultdict(_Free)
    slots: dict[Pool, int] = defaultdict(int)
    for worker in workers:
        if is_live(worker, policy, now):
            free[pool_of(worker)].add(worker, worker.free_slots)
            slots[pool_of(worker)] += worker.free_slots
    waiting: dict[Pool, list[QueuedJob]] = defaultdict(list)
    for job in queued:
        pool = pool_for(job)
        if slots.get(pool) and (job.not_before is None or job.not_before <= now):
            waiting[pool].append(job)
    chosen = [
        Assignment(job, free[pool].take(job.device_type))
        for pool, jobs in waiting.items()
        for job in heapq.nsmallest(slots[pool], jobs, key=urgency)
    ]
    return sorted(chosen, key=lambda assignment: urgency(assignment.job))


def reasons(
    queued: Sequence[QueuedJob], workers: Sequence[WorkerView], policy: Policy, now: datetime
) -> dict[int, str]:
    """Why each queued job waits, as a sentence, by job id."""
    live: dict[Pool, list[WorkerView]] = defaultdict(list)
    for worker in workers:
        if is_live(worker, policy, now):
            live[pool_of(worker)].append(worker)
    found: dict[int, str] = {}
    ahead: dict[Pool, int] = defaultdict(int)
    for job in sorted(queued, key=urgency):
        if job.not_before is not None and job.not_before > now:
            seconds = (job.not_before - now).total_seconds()
            found[job.id] = f"Tried again in {seconds:.0f} s."
            continue
        pool = pool_for(job)
        ahead[pool] += 1
        found[job.id] = _reason(pool, live[pool], ahead[pool])
    return found


def reason(
    job: QueuedJob, *, queued: Sequence[QueuedJob], workers: Sequence[WorkerView], policy: Policy, now: datetime
) -> str:
    """Why this queued job waits, as a sentence."""
    return reasons([*(other for other in queued if other.id != job.id), job], workers, policy, now)[job.id]


def is_live(worker: WorkerView, policy: Policy, now: datetime) -> bool:
    """Whether the worker may be given a job."""
    return not worker.stopping and now - worker.last_heartbeat <= policy.silent_after


def pool_of(worker: WorkerView) -> Pool:
    return Pool(worker.kind, worker.engine if worker.kind == "engine" else None)


def pool_for(job: QueuedJob) -> Pool:
    return Pool("engine", job.engine) if job.stage is Stage.INFER else Pool("harness")


def urgency(job: QueuedJob) -> tuple[int, datetime, int, int]:
    """Sort key: smaller goes first. Job ids rise with the stages of an evaluation."""
    return (-job.priority, job.created_at, job.evaluation, job.id)


def _reason(pool: Pool, live: Sequence[WorkerView], position: int) -> str:
    if not live:
        return f"No {pool} is connected."
    free = sum(worker.free_slots for worker in live)
    if position <= free:
        return "Next: it starts in a moment."
    place = ordinal(position - free)
    if len(live) == 1:
        holds = list(dict.fromkeys(live[0].holding))
        return f"{place}; the {pool} is busy with {_evaluations(holds)}." if holds else f"{place} for the {pool}."
    return f"{place}; all {len(live)} {pool}s are busy."


def _evaluations(ids: Sequence[int]) -> str:
    if len(ids) == 1:
        return f"evaluation {ids[0]}"
    return "evaluations " + ", ".join(map(str, ids[:-1])) + f" and {ids[-1]}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"
