"""When a waiting job is likely to start and how long it takes: the work before it, shared out over the devices. Pure.

What a person may count on within a factor of two, not a promise: it knows no gaps that a large job leaves, and counts
every worker of a kind as one that could take every job.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta

from orchestrator.scheduling.estimates import Estimate, Speeds, device_key
from orchestrator.scheduling.places import Pool, QueuedJob, WorkerView, could_hold, devices_for, pool_of
from orchestrator.wire import Stage
from orchestrator.words import duration

STEPS = {Stage.PREPARE: "preparing", Stage.SCORE: "scoring"}
"""Stages beside the engine's work: seconds of preparing are not to be taken for all that an evaluation needs."""


class Times:
    """Work that runs and waits in each pool, in seconds of a device, as far as speeds are measured."""

    def __init__(self, live: Mapping[Pool, Sequence[WorkerView]], speeds: Speeds) -> None:
        # One of a kind is as good as all: where a job fits and how fast it is there does not depend on more.
        self._kinds = {pool: list({_kind(worker): worker for worker in there}.values()) for pool, there in live.items()}
        self._speeds = speeds
        self._keys: dict[tuple[Pool, object, int | None], list[tuple[str, int]]] = {}
        self._work: dict[Pool, timedelta] = defaultdict(timedelta)
        self._unknown: set[Pool] = set()
        self._slots = {pool: sum(worker.slots for worker in there) for pool, there in live.items()}

    def run(self, job: QueuedJob, worker: WorkerView, devices: int) -> None:
        """A job that a worker has now."""
        self._add(pool_of(worker), self._speeds.of(job, _key(job, worker, devices)), devices)

    def wait(self, job: QueuedJob, pool: Pool) -> None:
        """A job that goes before those that are described after it."""
        estimate, devices = self._estimate(job, pool)
        self._add(pool, estimate, devices)

    def describe(self, job: QueuedJob, pool: Pool) -> str:
        """`; about 35 min until it starts and 10 min of work, from measured speeds of similar models`.

        Of the job's own stage alone, and it says which. While workers may use nothing, only the work: when they may is
        not known.
        """
        own, _ = self._estimate(job, pool)
        if own is None:
            return "; no estimate yet, as nothing similar has finished" if job.stage is Stage.INFER else ""
        slots = self._slots.get(pool, 0)
        until = self._work[pool] / slots if slots else timedelta(0)
        about = "at least" if pool in self._unknown else "about"
        models = "such" if own.same_size and own.same_suite else "similar"
        source = f"measured speeds of {models} models" if job.stage is Stage.INFER else "measured runs"
        what = STEPS.get(job.stage, "work")
        start = f"{about} {duration(until)} until it starts and " if until >= timedelta(seconds=1) else "about "
        return f"; {start}{duration(max(own.total, timedelta(seconds=1)))} of {what}, from {source}"

    def _estimate(self, job: QueuedJob, pool: Pool) -> tuple[Estimate | None, int]:
        """By the fastest kind of worker that could hold it."""
        best: tuple[Estimate | None, int] = (None, 1)
        for key, devices in self._where(job, pool):
            estimate = self._speeds.of(job, key)
            if estimate is not None and (best[0] is None or estimate.total < best[0].total):
                best = estimate, devices
        return best

    def _where(self, job: QueuedJob, pool: Pool) -> list[tuple[str, int]]:
        """Kinds of devices that could hold the job, as speeds are kept by them, and how many it takes of each."""
        if job.stage is not Stage.INFER:
            return [(job.stage.value, 1)] if self._kinds.get(pool) else []
        asked = (pool, job.need, job.longest)
        if asked not in self._keys:
            kinds = [(one, devices_for(job, one) or could_hold(job, one)) for one in self._kinds.get(pool, ())]
            fitting = ((_key(job, one, devices), devices) for one, devices in kinds if devices)
            self._keys[asked] = list(dict.fromkeys(fitting))
        return self._keys[asked]

    def _add(self, pool: Pool, estimate: Estimate | None, devices: int) -> None:
        if estimate is None:
            self._unknown.add(pool)
        else:
            self._work[pool] += devices * estimate.total


def _kind(worker: WorkerView) -> tuple[object, ...]:
    return worker.device, worker.device_type, worker.memory_bytes, worker.slots, worker.device_count


def _key(job: QueuedJob, worker: WorkerView, devices: int) -> str:
    return device_key(worker.device, devices) if job.stage is Stage.INFER else job.stage.value
