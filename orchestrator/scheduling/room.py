"""The free slots of workers that can do the same jobs, while a round of the scheduler gives them out. Pure.

Workers of one place are kept by how many slots they have free, the preferred one first, so that of a thousand alike
none is looked at but the one that is taken.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from orchestrator.scheduling.estimates import Speeds, device_key
from orchestrator.scheduling.places import Place, Policy, QueuedJob, WorkerView, place_of, refusal


class Assignment(NamedTuple):
    job: QueuedJob
    worker: WorkerView
    devices: int = 1
    """How many of the worker's slots it takes."""


class Reserved(NamedTuple):
    """A worker that is kept free for a job until it can start there."""

    job: QueuedJob
    worker: WorkerView
    devices: int


class _Alike:
    """Workers of one place, by how many slots they have free; the preferred one of each number first."""

    def __init__(self) -> None:
        self._by_free: dict[int, list[tuple[_Preference, WorkerView]]] = defaultdict(list)

    def put(self, preference: "_Preference", worker: WorkerView, free: int) -> None:
        if free:
            heapq.heappush(self._by_free[free], (preference, worker))

    def find(
        self, devices: int, left: Mapping[str, int], skip: Callable[[WorkerView], bool], *, fullest: bool
    ) -> tuple["_Preference", WorkerView] | None:
        """The preferred worker with at least so many slots left. Entries that a worker left behind are dropped."""
        numbers = sorted((number for number in self._by_free if number >= devices), reverse=not fullest)
        for number in numbers:
            heap = self._by_free[number]
            passed = []
            found = None
            while heap and found is None:
                if left[heap[0][1].name] != number:
                    heapq.heappop(heap)
                elif skip(heap[0][1]):
                    passed.append(heapq.heappop(heap))
                else:
                    found = heap[0]
            for entry in passed:
                heapq.heappush(heap, entry)
            if found is not None:
                return found
            if not heap:
                del self._by_free[number]
        return None


_Preference = tuple[bool, str]
"""Smaller is better for a job whose weights it lacks: it keeps nothing that another job wants."""

_WARM, _LAST, _HAS, _LACKS = range(4)
"""How far a worker is from computing: its engine is up; it used the weights last; has them; has to fetch them."""


class Room:
    """The live workers of one pool and what they have free, while a round gives it out."""

    def __init__(self, policy: Policy, now: datetime, speeds: Speeds) -> None:
        self._policy, self._now, self._speeds = policy, now, speeds
        self._workers: list[tuple[WorkerView, int]] = []
        self._places: dict[Place, int] = {}
        self._left: dict[str, int] = {}
        self._sizes: dict[tuple[object, int | None, str, str], tuple[int, ...]] = {}
        self._free_in: list[int] = []
        self._wanted: frozenset[str] = frozenset()
        self._near: dict[tuple[int, int, str], _Alike] = {}
        self.warm: set[str] = set()
        """Commits of models whose engines are up where slots are free."""
        self.free = 0

    def add(self, worker: WorkerView) -> None:
        number = self._places.setdefault(place_of(worker, self._now), len(self._places))
        self._free_in += [0] * (number + 1 - len(self._free_in))
        self._workers.append((worker, number))
        self._left[worker.name] = worker.free_slots
        self._free_in[number] += worker.free_slots
        self.free += worker.free_slots
        if worker.free_slots:
            self.warm.update(worker.warm)

    def open(self, wanted: frozenset[str]) -> None:
        """Begin giving out, to jobs with these weights."""
        self._wanted = wanted
        for worker, number in self._workers:
            self._put(worker, number)

    def sizes(self, job: QueuedJob) -> tuple[int, ...]:
        """Slots that the job takes in each place; 0 where it does not fit."""
        key = (job.need, job.longest, job.harness, job.canary_on)
        found = self._sizes.get(key)
        if found is None:
            found = tuple(place.devices_for(*key) for place in self._places)
            self._sizes[key] = found
        return found

    @property
    def has_short_windows(self) -> bool:
        """Whether it depends on more than its footprint where a job fits."""
        return any(
            place.window is not None and place.window < self._policy.useful_window and self._free_in[number]
            for place, number in self._places.items()
        )

    def most(self, sizes: Sequence[int], *, device_type: str | None) -> int:
        """How many jobs of one class might be looked at: those that there is room for, and one to keep room for."""
        room = sum(
            free // size
            for place, free, size in zip(self._places, self._free_in, sizes, strict=True)
            if size and device_type in (None, place.device_type)
        )
        return room + (max(sizes) > 1)

    def take(
        self, job: QueuedJob, sizes: Sequence[int], *, only: bool, avoid: frozenset[str | None]
    ) -> Assignment | None:
        """Give the job its slots: on its device type if some are free there; with `only` on no other."""
        places = self._fitting(job, sizes, avoid=avoid)
        found = None
        if job.device_type is not None:
            found = self._best(job, [entry for entry in places if entry[0].device_type == job.device_type])
        if found is None and not (only and job.device_type is not None):
            found = self._best(job, places)
        if found is None:
            return None
        worker, number, devices = found
        self._left[worker.name] -= devices
        self._free_in[number] -= devices
        self.free -= devices
        self._put(worker, number)
        return Assignment(job, worker, devices)

    def reserve(
        self, job: QueuedJob, sizes: Sequence[int], *, only: bool, avoid: frozenset[str | None]
    ) -> Reserved | None:
        """Keep the worker that lacks the fewest slots for the job: nothing more is given to it in this round."""
        numbers = {number: size for _, number, size, _ in self._fitting(job, sizes, avoid=avoid)}
        fitting = [
            (self._left[worker.name] - numbers[number], worker, number)
            for worker, number in self._workers
            if number in numbers and not refusal(worker, job)
            and not (only and job.device_type not in (None, worker.device_type))
        ]  # fmt: skip
        if not fitting:
            return None
        _, worker, number = min(fitting, key=lambda entry: (-entry[0], entry[1].name))
        kept = self._left[worker.name]
        self._left[worker.name] = 0
        self._free_in[number] -= kept
        self.free -= kept
        return Reserved(job, worker, numbers[number])

    def _fitting(
        self, job: QueuedJob, sizes: Sequence[int], *, avoid: frozenset[str | None]
    ) -> list[tuple[Place, int, int, int]]:
        """Places that may have the job: with number, slots, and how well it fills their windows (smaller is better)."""
        found = []
        for (place, number), size in zip(self._places.items(), sizes, strict=True):
            if not size or place.device_type in avoid:
                continue
            filling = 1
            if place.window is not None:
                ends = self._ends_within(job, place, size, place.window)
                if not ends and place.window < self._policy.useful_window:
                    continue
                filling = 0 if ends else 2
            found.append((place, number, size, filling))
        return found

    def _ends_within(self, job: QueuedJob, place: Place, size: int, window: timedelta) -> bool:
        expected_time = self._speeds.of(job, device_key(place.device, size))
        return expected_time is not None and expected_time.total <= window

    def _best(
        self, job: QueuedJob, places: Sequence[tuple[Place, int, int, int]]
    ) -> tuple[WorkerView, int, int] | None:
        refused = bool(job.refused_by)
        if job.failed_on:
            found = self._search(job, places, lambda one: one.name in job.failed_on or (refused and refusal(one, job)))
            if found is not None:
                return found
        return self._search(job, places, (lambda one: refusal(one, job)) if refused else _nobody)

    def _search(
        self, job: QueuedJob, places: Sequence[tuple[Place, int, int, int]], skip: Callable[[WorkerView], bool]
    ) -> tuple[WorkerView, int, int] | None:
        for distance in (_WARM, _LAST, _HAS, _LACKS) if job.weights else (_LACKS,):
            best: tuple[tuple[int, int, int, _Preference], WorkerView, int, int] | None = None
            for place, number, size, filling in places:
                alike = self._near.get((number, distance, "" if distance == _LACKS else job.weights))
                if alike is None or not self._free_in[number]:
                    continue
                found = alike.find(size, self._left, skip, fullest=place.pool.engine is not None)
                if found is None:
                    continue
                rank = (filling, size, place.memory_bytes or 0, found[0])
                if best is None or rank < best[0]:
                    best = rank, found[1], number, size
            if best is not None:
                return best[1:]
        return None

    def _put(self, worker: WorkerView, number: int) -> None:
        free = self._left[worker.name]
        has = self._wanted.intersection(worker.weights).union(self._wanted.intersection(worker.warm))
        preference = (bool(has), worker.name)
        for commit in has:
            distance = _WARM if commit in worker.warm else _LAST if worker.weights[0] == commit else _HAS
            self._near.setdefault((number, distance, commit), _Alike()).put(preference, worker, free)
        self._near.setdefault((number, _LACKS, ""), _Alike()).put(preference, worker, free)


def _nobody(worker: WorkerView) -> bool:
    return False
