"""Workers that would compute on the same GPU: whoever was there first keeps it, any other gets no work. Pure.

Two workers of one host that were both given a GPU would each fill its memory. They do not know of each other, and each
may see the other as somebody else's program, or not look at all.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from orchestrator.tables import Worker

HEARD = timedelta(minutes=1)
"""A worker that said nothing for longer holds no GPU against another."""


def doubles(workers: Iterable[Worker], *, now: datetime) -> dict[str, str]:
    """Why a worker gets no work, by name: for those that name a GPU of another one that lives and was there before."""
    holders: dict[str, str] = {}
    found: dict[str, str] = {}
    for worker in sorted(workers, key=lambda one: (one.first_seen, one.name)):
        if worker.stopping or abs(now - worker.last_heartbeat) > HEARD:
            continue
        named = {str(gpu.get("uuid")): gpu.get("index", 0) for gpu in worker.gpus or () if gpu.get("uuid")}
        taken = next((uuid for uuid in named if uuid in holders), None)
        if taken is not None:
            found[worker.name] = (
                f"GPU {named[taken]} ({taken[:50]}) is worker {holders[taken]}'s, which was there before. Give each "
                "worker GPUs of its own (CUDA_VISIBLE_DEVICES), or end one of the two."
            )
            continue
        holders |= dict.fromkeys(named, worker.name)
    return found
