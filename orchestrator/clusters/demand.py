"""How many more workers queued jobs could keep busy: the plan itself is asked, with workers that are not there yet.

So whatever decides where a job may run decides what is launched for it. Pure.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchestrator.canaries.builds import Entry
from orchestrator.clusters.config import ClusterSettings
from orchestrator.scheduling.places import Policy, QueuedJob, WorkerView, is_live
from orchestrator.scheduling.scheduler import plan
from orchestrator.wire import EngineFamily, Stage


@dataclass(frozen=True)
class Offer:
    """What one worker of a cluster would be."""

    cluster: str
    engine: EngineFamily
    gpus: int
    gpu_memory: int | None = None

    @classmethod
    def of(cls, settings: ClusterSettings, *, engine: EngineFamily) -> "Offer":
        return cls(settings.name, settings.engine or engine, settings.gpus, settings.gpu_memory)

    def worker(self, number: int, now: datetime) -> WorkerView:
        # The scripted engine says that it computes on the CPU, wherever it runs.
        is_scripted = self.engine is EngineFamily.SCRIPTED
        return WorkerView(
            name=f"{self.cluster}/{number}",
            boot="",
            kind="engine",
            slots=1 if is_scripted else self.gpus,
            last_heartbeat=now,
            engine=self.engine,
            device_type="cpu" if is_scripted else "cuda",
            device_count=1 if is_scripted else self.gpus,
            memory_bytes=None if is_scripted else self.gpu_memory,
        )


TRIED_AGAIN_AFTER = timedelta(minutes=45)
"""After workers that a canary held have left: the engine may have been mended there. Less than `launches.SHOWN`, after
which nothing is known of them."""


def count_wanted(
    queued: Iterable[QueuedJob],
    workers: Sequence[WorkerView],
    *,
    offer: Offer,
    starting: int,
    most: int,
    policy: Policy,
    now: datetime,
    launched: Collection[str] = (),
) -> int:
    """Workers like the offer, at most `most`, that would get a job beside all that are up; less the `starting` ones.

    `launched` are those that this was done for already and those that it was last done for. None is wanted while a
    canary holds one of them: another would be held as well. Once the last has left, held, one is tried now and then.
    """
    ready = [
        job
        for job in queued
        if job.stage is Stage.INFER and job.engine is offer.engine and (job.not_before is None or job.not_before <= now)
    ]
    if not ready:
        return -starting
    there = [worker for worker in workers if worker.name in launched]
    if any(worker.entry is not Entry.OPEN and is_live(worker, policy, now) for worker in there):
        return 0
    last = max(there, key=lambda worker: worker.last_heartbeat, default=None)
    if last is not None and last.entry is not Entry.OPEN:
        may_be_another = last.entry is Entry.WAITS or now - last.last_heartbeat >= TRIED_AGAIN_AFTER
        return may_be_another - starting
    taken = {assignment.job.id for assignment in plan(ready, workers, policy, now)}
    left = [job for job in ready if job.id not in taken]
    full = [replace(worker, used=worker.slots) for worker in workers]
    new = [offer.worker(number, now) for number in range(most)]
    names = {worker.name for worker in new}
    given = {assignment.worker.name for assignment in plan(left, [*full, *new], policy, now)}
    return len(given & names) - starting
