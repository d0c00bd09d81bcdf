"""Decides which queued job goes to which worker. Pure: reads no clock and no rows.

The earliest turn first (`orchestrator.scheduling.turns`), where an engine of its model is up and free a little earlier.
A job goes only where it fits (`orchestrator.scheduling.places`), takes the fewest devices that hold it, and never more
than are free. Of several places it takes, in this order: one on which it has not failed; one whose engine is warm for
it, else one that has its weights; one whose window it fills before one without an end, before one in which it would not
end; where it takes the fewest and the smallest devices; and of workers alike, for an engine the fullest, so that large
gaps stay large, for the harness the emptiest.

A job for several devices that has waited long has the worker with the most of them free kept for it: nothing less
urgent is given to that worker until it starts. A job goes to no type of device on which another is computing what it
asks: a response is computed once there, and is unknown on others.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

from orchestrator.scheduling.answering import Answering
from orchestrator.scheduling.estimates import Speeds
from orchestrator.scheduling.places import (
    Policy,
    Pool,
    QueuedJob,
    WorkerView,
    expected,
    is_live,
    pool_for,
    pool_of,
    refused_there,
    urgency,
)
from orchestrator.scheduling.room import Assignment, Reserved, Room
from orchestrator.wire import Stage

NO_SPEEDS = Speeds()

HARNESS = Pool("harness")

SAMPLED = 512
"""Of the jobs of a class, by which those that are far from being chosen are told."""

_turn = attrgetter("turn_seconds")

_Alike = tuple[tuple[object, ...], bool]
_Class = tuple[Pool, str | None, bool, bool, tuple[int, ...]]
"""Those of one class fit in the same places, take as much there, and are equally far ahead of their turn."""
_Candidate = tuple[float, int, int, QueuedJob, tuple[int, ...]]
"""A job and the slots it takes in each of its pool's places, behind its sort key: turn, evaluation, its own number."""


class _Sorting(NamedTuple):
    """The jobs of one pool, while they are sorted into classes."""

    room: Room
    warm: set[str]
    alike: dict[_Alike, list[QueuedJob]] | None
    """None where it depends on each job by itself whether it may be chosen."""
    odd: list[QueuedJob]


class Round(NamedTuple):
    assignments: list[Assignment]
    reserved: list[Reserved]


def plan(
    queued: Iterable[QueuedJob],
    workers: Iterable[WorkerView],
    policy: Policy,
    now: datetime,
    *,
    speeds: Speeds = NO_SPEEDS,
) -> list[Assignment]:
    """Which jobs to give to which workers now, the most urgent first."""
    return plan_round(queued, workers, policy, now, speeds=speeds).assignments


def plan_round(
    queued: Iterable[QueuedJob],
    workers: Iterable[WorkerView],
    policy: Policy,
    now: datetime,
    *,
    speeds: Speeds = NO_SPEEDS,
) -> Round:
    """The plan, and the workers that are kept free for a job of several devices."""
    known = list(workers)
    live = [worker for worker in known if is_live(worker, policy, now)]
    rooms: dict[Pool, Room] = {}
    for worker in live:
        rooms.setdefault(pool_of(worker), Room(policy, now, speeds)).add(worker)
    rooms = {pool: room for pool, room in rooms.items() if room.free}
    if not rooms:
        return Round([], [])
    awaited = expected(known, policy, now)
    first = _first(queued, rooms, policy, awaited=awaited, now=now)
    wanted = frozenset(job.weights for *_, job, _ in first if job.weights)
    for room in rooms.values():
        room.open(wanted)
    answering = Answering(known)
    chosen: list[Assignment] = []
    reserved: dict[Pool, Reserved] = {}
    while first:
        *_, job, sizes = heapq.heappop(first)
        pool = pool_for(job)
        room = rooms[pool]
        if not room.free:
            if not any(other.free for other in rooms.values()):
                break
            continue
        only = job.bound or ((pool, job.device_type) in awaited and not refused_there(job, live))
        avoid = answering.to_avoid(job)
        taken = room.take(job, sizes, only=only, avoid=avoid)
        if taken is not None:
            answering.add(taken.worker.device_type, job.evaluation, asks=job.asks)
            chosen.append(taken)
        elif pool not in reserved and max(sizes) > 1 and now - urgency(job)[0] >= policy.reserve_after:
            kept = room.reserve(job, sizes, only=only, avoid=avoid)
            if kept is not None:
                reserved[pool] = kept
    return Round(chosen, list(reserved.values()))


def forecast(
    queued: Iterable[QueuedJob], workers: Iterable[WorkerView], policy: Policy, now: datetime
) -> dict[str, list[QueuedJob]]:
    """Which of these jobs each live engine worker is likely to get next: the plan, if all its slots were free."""
    engines = [
        replace(one, holding=(), used=0) for one in workers if one.kind == "engine" and is_live(one, policy, now)
    ]
    found: dict[str, list[QueuedJob]] = {worker.name: [] for worker in engines}
    for assignment in plan([job for job in queued if job.stage is Stage.INFER], engines, policy, now):
        found[assignment.worker.name].append(assignment.job)
    return found


def _first(
    queued: Iterable[QueuedJob],
    rooms: Mapping[Pool, Room],
    policy: Policy,
    *,
    awaited: set[tuple[Pool, str | None]],
    now: datetime,
) -> list[_Candidate]:
    """The jobs that may be chosen, as a heap: the most urgent comes out first.

    No more of a class can be chosen than there are slots for it: the rest of a long queue is never sorted. Only those
    that may have to wait for something else, and so make room for others behind them, are all looked at.
    """
    sorting = {
        pool: _Sorting(room, room.warm, None if room.has_short_windows else defaultdict(list), [])
        for pool, room in rooms.items()
    }
    harness = sorting.get(HARNESS)
    engines = {pool.engine.value: there for pool, there in sorting.items() if pool.engine is not None}
    infer, canary = Stage.INFER, Stage.CANARY
    for job in queued:
        # Of a hundred thousand jobs nearly all end here: nothing is made that need not be.
        stage = job.stage
        there = engines.get(job.engine) if stage is infer or stage is canary else harness
        if there is None:
            continue
        _, warm, alike, odd = there
        if alike is not None and job.is_plain:
            alike[job.kind, job.weights in warm].append(job)
        elif job.not_before is None or job.not_before <= now:
            if alike is None or job.asks or job.refused_by:
                odd.append(job)
            else:
                alike[job.kind, job.weights in warm].append(job)
    classes: dict[_Class, list[QueuedJob]] = defaultdict(list)
    found: list[_Candidate] = []
    ahead = policy.warm_head_start.total_seconds()
    for pool, (room, warm, alike, odd) in sorting.items():
        for jobs in alike.values() if alike else ():
            first = jobs[0]
            bound = first.device_type if first.bound or (pool, first.device_type) in awaited else None
            classes[pool, bound, first.bound, first.weights in warm, room.sizes(first)] += jobs
        for job in odd:
            if any(sizes := room.sizes(job)):
                found.append(_candidate(job, sizes, ahead if job.weights in warm else 0.0))
    for (pool, bound, _, is_warm, sizes), jobs in classes.items():
        most = rooms[pool].most(sizes, device_type=bound)
        found += [_candidate(job, sizes, ahead if is_warm else 0.0) for job in _most_urgent(jobs, most)]
    heapq.heapify(found)
    return found


def _candidate(job: QueuedJob, sizes: tuple[int, ...], ahead: float) -> _Candidate:
    """So many seconds ahead of its turn. No two have the same number, so that nothing behind it is compared."""
    return job.turn_seconds - ahead, job.evaluation, job.id, job, sizes


def _most_urgent(jobs: list[QueuedJob], most: int) -> list[QueuedJob]:
    """So many of the jobs, in any order."""
    if len(jobs) <= most or not most:
        return jobs if most else []
    few = _few(jobs, most)
    last = sorted(map(_turn, few))[most - 1]
    found = [job for job in few if job.turn_seconds <= last]
    return found if len(found) == most else sorted(found, key=attrgetter("urgency"))[:most]


def _few(jobs: list[QueuedJob], most: int) -> list[QueuedJob]:
    """Jobs with the `most` most urgent among them, and not many others if a sample of them is no bad one."""
    step = len(jobs) // SAMPLED
    sample = sorted(map(_turn, jobs[::step])) if step > 1 else []
    place = most // step + SAMPLED // 16 if sample else 0
    if place >= len(sample):
        return jobs
    few = [job for job in jobs if job.turn_seconds <= sample[place]]
    return few if len(few) >= most else jobs
