"""What is being computed, on which type of device: answers of one type are unknown on another. Pure."""

from collections import defaultdict
from collections.abc import Iterable

from orchestrator.scheduling.places import QueuedJob, WorkerView


class Answering:
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
        if not job.asks:
            return frozenset()
        return frozenset(one for one in self._asked if self.other(job, one) is not None)
