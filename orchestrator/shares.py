"""The largest share of the cluster's GPUs that Evalyard may hold. Pure: it acts by what workers seem to have free.

GPUs are those of all live workers, busy ones too. Nothing that runs is ended for it, and nothing new starts above it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from orchestrator.scheduling.places import Policy, QueuedJob, WorkerView, could_hold, is_live
from orchestrator.scheduling.room import Assignment, Reserved


class Share(NamedTuple):
    allowed: int
    """GPUs that may be held."""
    held: int
    gpus: int

    @property
    def room(self) -> int:
        return max(self.allowed - self.held, 0)

    def is_too_small(self, job: QueuedJob, workers: Sequence[WorkerView]) -> bool:
        """Whether the job needs more GPUs than may ever be held, wherever it could run."""
        needed = [(worker.holds_gpus, devices) for worker in workers if (devices := could_hold(job, worker))]
        return bool(needed) and all(holds_gpus and devices > self.allowed for holds_gpus, devices in needed)

    @property
    def sentence(self) -> str:
        return f"Evalyard holds {self.held} of the {self.gpus} GPUs, and may hold {self.allowed} (EVALYARD_GPU_SHARE)."


def share_of(workers: Sequence[WorkerView], policy: Policy, now: datetime) -> Share | None:
    """How many GPUs may be held and are; None without a limit."""
    if policy.gpu_share >= 1:
        return None
    live = [worker for worker in workers if worker.holds_gpus and is_live(worker, policy, now)]
    gpus = sum(worker.device_count for worker in live)
    return Share(math.floor(policy.gpu_share * gpus), sum(_used(worker) for worker in live), gpus)


def within_share(workers: Sequence[WorkerView], share: Share | None) -> list[WorkerView]:
    """The workers, none with more GPUs free than the share has room for, and none with more than it ever allows.

    So a model that needs more than that fits nowhere: no worker is kept free for it.
    """
    return list(workers) if share is None else [_capped(worker, share) for worker in workers]


def _capped(worker: WorkerView, share: Share) -> WorkerView:
    if not worker.holds_gpus or (worker.free_slots <= share.room and worker.slots <= share.allowed):
        return worker
    slots = min(worker.slots, share.allowed)
    return replace(worker, slots=slots, used=slots - min(worker.free_slots, share.room))


def first_within_share(
    chosen: Sequence[Assignment], reserved: Sequence[Reserved], share: Share | None
) -> list[Assignment]:
    """Of a plan's assignments, the most urgent first, those that the share has room for together.

    A job that a worker is kept free for has its part of the share kept as well, or small jobs would use it for ever.
    """
    if share is None:
        return list(chosen)
    room = share.room - sum(one.devices for one in reserved if one.worker.holds_gpus)
    kept = []
    for one in chosen:
        if one.worker.holds_gpus:
            room -= one.devices
            if room < 0:
                continue
        kept.append(one)
    return kept


def _used(worker: WorkerView) -> int:
    return len(worker.holding) if worker.used is None else worker.used
