"""Decides which queued job goes to which worker, and says why the others wait. Pure: reads no clock and no rows.

Higher priority first, then the older evaluation, then the earlier stage. Only live workers of the fitting kind and
engine family count, and never more jobs than a worker has free slots. Of several free workers, a job goes to one on
which it has not failed, and then to one that has its weights, the one that used them last before all: that decides
where a job runs, and never when. A job goes to no type of device on which another is computing what it asks:
a response is computed once there, and is unknown on others.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
    """Where earlier attempts answered: their responses are known only there, so it waits for such a worker a while."""
    weights: str = ""
    """Commit of the weights that it loads; only infer does."""
    failed_on: frozenset[str] = frozenset()
    """Workers on which attempts of it failed: what is wrong may be theirs."""
    asks: frozenset[str] = frozenset()
    """What it computes that others might compute, too; empty where that is not known or cannot be."""


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
    weights: tuple[str, ...] = ()
    """Commits whose weights lie on its host, those used last first."""
    answering: tuple[tuple[int, frozenset[str]], ...] = ()
    """Evaluations that it computes now, with what they ask and is not answered yet."""

    @property
    def free_slots(self) -> int:
        return max(self.slots - len(self.holding), 0)


@dataclass(frozen=True)
class Policy:
    silent_after: timedelta = timedelta(seconds=30)
    """A worker whose last heartbeat is older gets no new job."""
    device_patience: timedelta = timedelta(minutes=10)
    """How long a job waits for a worker of the device type that has its responses, after the last one was heard of."""


class Assignment(NamedTuple):
    job: QueuedJob
    worker: WorkerView


class Pool(NamedTuple):
    """Workers that can do the same jobs."""

    kind: Literal["harness", "engine"]
    engine: EngineFamily | None = None

    def __str__(self) -> str:
        return f"{self.engine.value} engine worker" if self.engine else f"{self.kind} worker"


class _Free:
    """The free slots of one pool. `wanted`: weights of the jobs that they may go to."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._slots: dict[str, int] = {}
        self._order: list[tuple[_Preference, WorkerView]] = []
        """A heap, the preferred worker first; entries that a worker left behind by losing a slot are passed over."""
        self._having: dict[str, list[WorkerView]] = defaultdict(list)

    def add(self, worker: WorkerView) -> None:
        if worker.free_slots:
            self._set(worker, worker.free_slots)
            for commit in self._wanted.intersection(worker.weights):
                self._having[commit].append(worker)

    def take(self, job: QueuedJob, *, only: bool, avoid: frozenset[str | None]) -> WorkerView | None:
        """A worker, of the job's device type if one is free; with `only`, of no other, and of none to `avoid`."""
        taken = None
        if job.device_type and job.device_type not in avoid:
            fitting = {
                one.name: one for _, one in self._order if one.device_type == job.device_type and self._left(one)
            }
            taken = self._best(fitting.values(), job)
        if taken is None and not only:
            taken = self._anywhere(job, avoid)
        if taken is not None:
            self._set(taken, self._slots[taken.name] - 1)
        return taken

    def _anywhere(self, job: QueuedJob, avoid: frozenset[str | None]) -> WorkerView | None:
        if job.failed_on or avoid:
            left = {one.name: one for _, one in self._order if self._left(one) and one.device_type not in avoid}
            return self._best(left.values(), job)
        return self._best(filter(self._left, self._having[job.weights]), job) or self._first()

    def _best(self, workers: Iterable[WorkerView], job: QueuedJob) -> WorkerView | None:
        return min(workers, key=lambda one: (_distance(one, job), self._preference(one)), default=None)

    def _first(self) -> WorkerView | None:
        while self._order:
            preference, worker = self._order[0]
            if preference == self._preference(worker) and self._left(worker):
                return worker
            heapq.heappop(self._order)
        return None

    def _set(self, worker: WorkerView, slots: int) -> None:
        self._slots[worker.name] = slots
        if slots:
            heapq.heappush(self._order, (self._preference(worker), worker))

    def _left(self, worker: WorkerView) -> int:
        return self._slots[worker.name]

    def _preference(self, worker: WorkerView) -> "_Preference":
        """Smaller is better for a job whose weights it lacks: it keeps nothing that another job wants, it is empty."""
        return (not self._wanted.isdisjoint(worker.weights), -self._slots[worker.name], worker.name)


_Preference = tuple[bool, int, str]


class _Answering:
    """What is being computed, on which type of device: answers of one type are unknown on another."""

    def __init__(self, workers: Iterable[WorkerView]) -> None:
        self._asked: dict[str | None, dict[str, int]] = defaultdict(dict)
        for worker in workers:
            for evaluation, asks in worker.answering:
                self.add(worker.device_type, evaluation, asks=asks)

    def add(self, device_type: str | None, evaluation: int, *, asks: frozenset[str]) -> None:
        self._asked[device_type] |= dict.fromkeys(asks, evaluation)

    def other(self, job: QueuedJob, device_type: str | None) -> int | None:
        """Another evaluation that computes there what this job asks, if any."""
        asked = self._asked.get(device_type, {})
        return next((asked[ask] for ask in sorted(job.asks) if asked.get(ask, job.evaluation) != job.evaluation), None)

    def to_avoid(self, job: QueuedJob) -> frozenset[str | None]:
        """Types of device on which the job would compute what another does."""
        return frozenset(one for one in self._asked if job.asks and self.other(job, one) is not None)


def _distance(worker: WorkerView, job: QueuedJob) -> int:
    """How far the worker is from computing: 0 when it used the job's weights last, 1 when it has them, else 2.

    Where the job has failed already it is 3: there it is tried again only when no other worker is free.
    """
    if worker.name in job.failed_on:
        return 3
    if not job.weights or job.weights not in worker.weights:
        return 2
    return 0 if worker.weights[0] == job.weights else 1


def plan(queued: Iterable[QueuedJob], workers: Iterable[WorkerView], policy: Policy, now: datetime) -> list[Assignment]:
    """Which jobs to give to which workers now, the most urgent first."""
    slots: dict[Pool, int] = defaultdict(int)
    known = list(workers)
    expected = _expected(known, policy, now)
    live = [worker for worker in known if is_live(worker, policy, now)]
    for worker in live:
        slots[pool_of(worker)] += worker.free_slots
    waiting: dict[tuple[Pool, str | None], list[QueuedJob]] = defaultdict(list)
    ready = [job for job in queued if slots.get(pool_for(job)) and (job.not_before is None or job.not_before <= now)]
    for job in ready:
        pool = pool_for(job)
        waiting[pool, job.device_type if (pool, job.device_type) in expected else None].append(job)
    # No more of a kind can be chosen than there are slots: the rest of a long queue is never sorted. Only those that
    # may have to wait for another evaluation are all looked at.
    first = [
        (urgency(job), pool, bound, job)
        for (pool, bound), jobs in waiting.items()
        for job in (
            *heapq.nsmallest(slots[pool], (job for job in jobs if not job.asks), key=urgency),
            *(job for job in jobs if job.asks),
        )
    ]
    wanted = frozenset(job.weights for *_, job in first if job.weights)
    free: dict[Pool, _Free] = defaultdict(lambda: _Free(wanted))
    for worker in live:
        free[pool_of(worker)].add(worker)
    answering = _Answering(known)
    chosen = []
    for _, pool, bound, job in sorted(first, key=lambda entry: entry[0]):
        if not slots[pool]:
            continue
        taken = free[pool].take(job, only=bound is not None, avoid=answering.to_avoid(job))
        if taken is not None:
            slots[pool] -= 1
            answering.add(taken.device_type, job.evaluation, asks=job.asks)
            chosen.append(Assignment(job, taken))
    return chosen


def forecast(
    queued: Iterable[QueuedJob], workers: Iterable[WorkerView], policy: Policy, now: datetime
) -> dict[str, list[QueuedJob]]:
    """Which of these jobs each live engine worker is likely to get next: the plan, if all its slots were free."""
    engines = [replace(one, holding=()) for one in workers if one.kind == "engine" and is_live(one, policy, now)]
    found: dict[str, list[QueuedJob]] = {worker.name: [] for worker in engines}
    for job, worker in plan([job for job in queued if job.stage is Stage.INFER], engines, policy, now):
        found[worker.name].append(job)
    return found


def reasons(
    queued: Sequence[QueuedJob], workers: Sequence[WorkerView], policy: Policy, now: datetime
) -> dict[int, str]:
    """Why each queued job waits, as a sentence, by job id.

    Places are counted in evaluations, which is what people submit: those that a worker holds are ahead, too.
    """
    answering = _Answering(workers)
    chosen = set()
    for job, worker in plan(queued, workers, policy, now):
        chosen.add(job.id)
        answering.add(worker.device_type, job.evaluation, asks=job.asks)
    expected = _expected(workers, policy, now)
    live: dict[Pool, list[WorkerView]] = defaultdict(list)
    for worker in workers:
        if is_live(worker, policy, now):
            live[pool_of(worker)].append(worker)
    found: dict[int, str] = {}
    ahead: dict[Pool, set[int]] = defaultdict(set)
    for pool, there in live.items():
        ahead[pool].update(*(worker.holding for worker in there))
    for job in sorted(queued, key=urgency):
        if job.not_before is not None and job.not_before > now:
            seconds = (job.not_before - now).total_seconds()
            found[job.id] = f"Tried again in {seconds:.0f} s."
            continue
        if job.id in chosen:
            found[job.id] = "Next: it starts in a moment."
            ahead[pool_for(job)].add(job.evaluation)
            continue
        pool = pool_for(job)
        found[job.id] = _reason(pool, live[pool], len(ahead[pool] - {job.evaluation}))
        ahead[pool].add(job.evaluation)
        devices = {worker.device_type for worker in live[pool] if worker.free_slots}
        if devices and (pool, job.device_type) in expected:
            found[job.id] = f"Waits for a worker on {job.device_type}, where its earlier responses were computed."
            devices &= {job.device_type}
        others = [answering.other(job, device) for device in devices]
        if others and None not in others:
            found[job.id] = f"Waits for evaluation {others[0]}, which computes some of the same answers."
    return found


def reason(
    job: QueuedJob, *, queued: Sequence[QueuedJob], workers: Sequence[WorkerView], policy: Policy, now: datetime
) -> str:
    """Why this queued job waits, as a sentence."""
    return reasons([*(other for other in queued if other.id != job.id), job], workers, policy, now)[job.id]


def is_live(worker: WorkerView, policy: Policy, now: datetime) -> bool:
    """Whether the worker may be given a job."""
    # A heartbeat of the future is from before the hub's clock was set back: it says nothing of now.
    return not worker.stopping and abs(now - worker.last_heartbeat) <= policy.silent_after


def _expected(workers: Iterable[WorkerView], policy: Policy, now: datetime) -> set[tuple[Pool, str | None]]:
    """Device types of each pool that are worth waiting for."""
    return {
        (pool_of(worker), worker.device_type)
        for worker in workers
        if worker.device_type is not None and abs(now - worker.last_heartbeat) <= policy.device_patience
    }


def pool_of(worker: WorkerView) -> Pool:
    return Pool(worker.kind, worker.engine if worker.kind == "engine" else None)


def pool_for(job: QueuedJob) -> Pool:
    return Pool("engine", job.engine) if job.stage is Stage.INFER else Pool("harness")


def urgency(job: QueuedJob) -> tuple[int, datetime, int, int]:
    """Sort key: smaller goes first. Job ids rise with the stages of an evaluation."""
    return (-job.priority, job.created_at, job.evaluation, job.id)


def _reason(pool: Pool, live: Sequence[WorkerView], ahead: int) -> str:
    if not live:
        return f"No {pool} is connected."
    place = f"{ahead} ahead" if ahead else "First"
    if len(live) == 1:
        holds = list(dict.fromkeys(live[0].holding))
        return f"{place}; the {pool} is busy with {_evaluations(holds)}." if holds else f"{place} for the {pool}."
    return f"{place}; all {len(live)} {pool}s are busy."


def _evaluations(ids: Sequence[int]) -> str:
    if len(ids) == 1:
        return f"evaluation {ids[0]}"
    return "evaluations " + ", ".join(map(str, ids[:-1])) + f" and {ids[-1]}"
