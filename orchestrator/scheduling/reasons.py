"""Why each queued job waits and about how long, as a sentence for people. Pure; computed only when someone asks.

Places are counted in evaluations that wait, as those are what people submit. The time until a job starts is the work
that runs and waits before it on workers of its kind, by measured speeds, shared out over their devices: what a person
may count on within a factor of two, not a promise.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.canaries.builds import Entry
from orchestrator.footprint import GIB, fewest_devices
from orchestrator.scheduling.answering import Answering
from orchestrator.scheduling.estimates import Speeds
from orchestrator.scheduling.places import (
    Policy,
    Pool,
    QueuedJob,
    WorkerView,
    could_hold,
    devices_for,
    expected,
    is_live,
    pool_for,
    pool_of,
    refusal,
    urgency,
)
from orchestrator.scheduling.scheduler import NO_SPEEDS, plan_round
from orchestrator.times import Times
from orchestrator.wire import EngineFamily
from orchestrator.words import gpu_memory

MOST_DEVICES = 1 << 12


@dataclass(frozen=True)
class Held:
    """A job that a worker has, with what is left to do of it."""

    job: QueuedJob
    worker: str
    devices: int = 1


def reasons(
    queued: Sequence[QueuedJob],
    workers: Sequence[WorkerView],
    policy: Policy,
    now: datetime,
    *,
    speeds: Speeds = NO_SPEEDS,
    held: Sequence[Held] = (),
) -> dict[int, str]:
    """Why each queued job waits, by job id."""
    planned = plan_round(queued, workers, policy, now, speeds=speeds)
    starting = {one.job.id: one.worker for one in planned.assignments}
    kept = {one.job.id: one.worker.name for one in planned.reserved}
    answering = Answering(workers)
    for one in planned.assignments:
        answering.add(one.worker.device_type, one.job.evaluation, asks=one.job.asks)
    awaited = expected(workers, policy, now)
    yard = {pool: _Crew(pool, there, policy) for pool, there in _by_pool(workers, policy, now).items()}
    views = {worker.name: worker for worker in workers}
    times = Times({pool: crew.live for pool, crew in yard.items()}, speeds)
    for each in held:
        if each.worker in views:
            times.run(each.job, views[each.worker], each.devices)
    found: dict[int, str] = {}
    ahead: dict[Pool, set[int]] = defaultdict(set)
    for job in sorted(queued, key=urgency):
        pool = pool_for(job)
        crew = yard.get(pool) or _Crew(pool, [], policy)
        if job.not_before is not None and job.not_before > now:
            found[job.id] = f"Tried again in {(job.not_before - now).total_seconds():.0f} s."
            continue
        if job.id in starting:
            found[job.id] = "Next: it starts in a moment."
            times.wait(job, pool)
            continue
        place = _ordinal(len(ahead[pool] - {job.evaluation}) + 1)
        time = times.describe(job, pool)
        times.wait(job, pool)
        ahead[pool].add(job.evaluation)
        if waits := _waits_for(job, crew, answering=answering, awaited=awaited):
            found[job.id] = f"{waits}."
        elif job.id in kept:
            found[job.id] = f"{place}; {kept[job.id]} is kept free for it until enough of its GPUs are{time}."
        else:
            what, estimable = crew.lack(job)
            found[job.id] = f"{place}; {what}{time}." if estimable else f"{what}."
    return found


def reason(
    job: QueuedJob, *, queued: Sequence[QueuedJob], workers: Sequence[WorkerView], policy: Policy, now: datetime
) -> str:
    """Why this queued job waits, as a sentence."""
    return reasons([*(other for other in queued if other.id != job.id), job], workers, policy, now)[job.id]


def _waits_for(
    job: QueuedJob, crew: "_Crew", *, answering: Answering, awaited: set[tuple[Pool, str | None]]
) -> str | None:
    """What the job waits for beside room, if anything."""
    devices = {worker.device_type for worker in crew.live if worker.free_slots and devices_for(job, worker)}
    waits = None
    if job.bound and not any(worker.device_type == job.device_type for worker in crew.live):
        return (
            f"Waits for a worker on {job.device_type}, where the rest of it is answered; it begins anew elsewhere once "
            "none was heard of for a day"
        )
    if devices and (job.bound or (crew.pool, job.device_type) in awaited) and job.device_type not in devices:
        waits = f"Waits for a worker on {job.device_type}, where its earlier responses were computed"
    if devices and (job.bound or (crew.pool, job.device_type) in awaited):
        devices &= {job.device_type}
    others = [answering.other(job, device) for device in devices]
    if others and None not in others:
        # Not which: it may be one that the reader may not see, and this says what its model is.
        return "Waits for another evaluation, which computes some of the same answers"
    return waits


class _Crew:
    """The live workers of a pool, and what a job lacks among them."""

    def __init__(self, pool: Pool, live: Sequence[WorkerView], policy: Policy) -> None:
        self.pool, self.live, self._policy = pool, live, policy
        self._told: dict[object, tuple[str, bool]] = {}

    def lack(self, job: QueuedJob) -> tuple[str, bool]:
        """What must happen before the job can start, and whether that is a matter of time."""
        key = (job.need, job.longest, job.refused_by, job.harness, job.canary_on)
        if key not in self._told:
            self._told[key] = self._lack(job)
        return self._told[key]

    def _lack(self, job: QueuedJob) -> tuple[str, bool]:
        if not self.live:
            return f"No {self.pool} is connected", False
        if job.canary_on and not any(worker.build == job.canary_on for worker in self.live):
            return f"Waits for a {self.pool} of its build", False
        able = [worker for worker in self.live if could_hold(job, worker)]
        if not able and job.harness:
            return _lacks_harness(job.harness), False
        if not able:
            return self._too_large(job), False
        willing = [worker for worker in able if not refusal(worker, job)]
        if not willing:
            return f"Waits for another {self.pool}: {_names(able)} refused it", False
        open_now = [(worker, devices) for worker in willing if (devices := devices_for(job, worker))]
        kept = [worker for worker in willing if worker.entry is not Entry.OPEN]
        if not open_now and kept and not job.canary_on:
            return _canary(kept), any(worker.entry is Entry.WAITS for worker in kept)
        if not open_now:
            said = next((worker.sentence for worker in willing if worker.sentence), "")
            why = f" ({said.rstrip('.')})" if said else ""
            lacks = "may use enough of its GPUs" if any(worker.holds_gpus for worker in willing) else "takes work again"
            return f"waits until {_names(willing)} {lacks}{why}", True
        devices = min(devices for _, devices in open_now)
        some = [worker for worker, needed in open_now if needed == devices]
        if devices > 1 or (len(some) < len(self.live) and some[0].holds_gpus):
            memory = min(worker.memory_bytes or 0 for worker in some)
            idle = max(worker.free_slots for worker in some)
            many = f"{devices} idle GPUs" if devices > 1 else "an idle GPU"
            each = f" with {gpu_memory(memory)}" if memory else ""
            return f"needs {many}{each}{' on one host' if devices > 1 else ''}, {idle or 'none'} idle", True
        if all(worker.free_slots for worker in some):
            is_short = all(worker.until for worker in some)
            return f"the {self.pool} has too little time left for it" if is_short else f"for the {self.pool}", True
        if len(self.live) == 1:
            holds = list(dict.fromkeys(self.live[0].holding))
            return f"the {self.pool} is busy with {_evaluations(holds)}" if holds else f"for the {self.pool}", True
        return f"all {len(self.live)} {self.pool}s are busy", True

    def _too_large(self, job: QueuedJob) -> str:
        assert job.need is not None, "what needs nothing fits anywhere"
        largest = max(self.live, key=lambda one: ((one.memory_bytes or 0) * max(one.slots, one.device_count), one.name))
        memory = largest.memory_bytes or 0
        weights = f"{job.need.weight_bytes / GIB:.0f} GiB of weights"
        if not largest.holds_gpus:
            return f"Needs a worker with more memory ({weights}); the largest has {gpu_memory(memory)}"
        most = MOST_DEVICES if self.pool.engine is EngineFamily.VLLM else 1
        needed = fewest_devices(job.need, memory_bytes=memory, count=most, context=job.longest)
        has = f"the largest worker has {max(largest.slots, largest.device_count)} of {gpu_memory(memory)}"
        if needed is None:
            return f"Needs larger GPUs ({weights}, and no more of them can share its heads); {has}"
        return f"Needs {needed} GPUs of {gpu_memory(memory)} ({weights}); {has}"


def _canary(kept: Sequence[WorkerView]) -> str:
    """`waits for the canary on gpu-7 (vllm 0.33.0)`."""
    waiting = [worker for worker in kept if worker.entry is not Entry.KEPT_OUT]
    named = waiting or kept
    versions = sorted({f"{one.engine.value if one.engine else 'engine'} {one.engine_version}".strip() for one in named})
    which = f"{_names(named)} ({', '.join(versions)})"
    return f"waits for the canary on {which}" if waiting else f"the canary keeps out {which}"


def _lacks_harness(harness: str) -> str:
    wanted = harness.replace("lm_eval ", "lm-eval==")
    return (
        f"Needs {harness}, which no connected worker has: add it on a worker's host with evalyard harness add {wanted}"
    )


def _by_pool(workers: Iterable[WorkerView], policy: Policy, now: datetime) -> dict[Pool, list[WorkerView]]:
    found: dict[Pool, list[WorkerView]] = defaultdict(list)
    for worker in workers:
        if is_live(worker, policy, now):
            found[pool_of(worker)].append(worker)
    return found


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _names(workers: Sequence[WorkerView]) -> str:
    names = sorted(worker.name for worker in workers)
    if len(names) > 3:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return ", ".join(names)


def _evaluations(ids: Sequence[int]) -> str:
    if len(ids) == 1:
        return f"evaluation {ids[0]}"
    return "evaluations " + ", ".join(map(str, ids[:-1])) + f" and {ids[-1]}"
