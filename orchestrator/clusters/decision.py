"""Decides how many workers to launch or to end on a cluster, and says why. Pure: reads no clock, no rows, no cluster.

Jobs of others come first: while one waits for these GPUs nothing is launched, what was launched and waits is withdrawn,
and workers are ended when the cluster does not take their GPUs by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator import words
from orchestrator.clusters.contract import ClusterView, JobState

FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=1)
MOST_AT_ONCE = 8
"""Launches in one round: a mistake in the settings must not flood the cluster."""


@dataclass(frozen=True)
class Limits:
    """What an operator allows."""

    gpus: int = 1
    """GPUs of one worker."""
    most_workers: int = 4
    leave_free: int = 0
    """GPUs that stay idle for others."""
    most_share: float = 1.0
    """Share of the cluster's GPUs that workers may hold."""
    start_timeout: timedelta = timedelta(minutes=10)
    """A worker that runs this long unheard, or falls silent this long, is ended."""
    pending_timeout: timedelta = timedelta(minutes=2)
    """A launch that the cluster does not start this long is withdrawn: the GPU that it was for is not idle any more."""
    yield_after: timedelta = timedelta(minutes=1)
    """Others have waited this long: the cluster does not preempt, so workers give back by themselves."""


@dataclass(frozen=True)
class OpenLaunch:
    """A launch that has not ended."""

    id: str
    state: JobState
    asked_at: datetime
    running_since: datetime | None = None
    """When its job was first seen running."""
    heard_at: datetime | None = None
    """Last heartbeat of its worker."""
    busy: bool = False
    """Whether its worker has work."""
    ending: bool = False
    """It was asked to end already, or says that it is stopping."""
    sentence: str = ""
    """What the cluster says of it."""


@dataclass(frozen=True)
class Deaths:
    """Launches that ended before their worker was heard of, since one last was."""

    count: int = 0
    last_at: datetime | None = None
    sentence: str = ""


@dataclass(frozen=True)
class Ending:
    launch: str
    sentence: str
    is_death: bool = False
    """It came to nothing, and the next one might as well."""


@dataclass(frozen=True)
class Decision:
    launch: int = 0
    endings: tuple[Ending, ...] = ()
    verdict: str = ""
    """Why so many, as a sentence."""


def decide(
    view: ClusterView,
    launches: Sequence[OpenLaunch],
    *,
    wanted: int,
    limits: Limits,
    deaths: Deaths,
    paused: bool = False,
    listening_since: datetime | None = None,
    now: datetime,
) -> Decision:
    """What to do now.

    `wanted`: workers that queued jobs could keep busy beside those that are up or starting; less than 0 when fewer than
    those that are starting would do. `listening_since`: before then the hub could hear no heartbeat, so that silence
    proves nothing.
    """
    endings = {one.launch: one for one in _overdue(launches, limits, now, listening_since=listening_since)}
    staying = [one for one in launches if one.id not in endings and not one.ending]
    waiting = [one for one in staying if one.state is JobState.PENDING]
    others = _others(view) if view.others.jobs else ""
    if others:
        endings |= {one.id: Ending(one.id, f"{others}.") for one in waiting}
        if view.others.since is not None and now - view.others.since >= limits.yield_after:
            leaving = sum(1 for one in launches if one.state is JobState.RUNNING and one not in staying)
            for one in _to_yield(staying, view.others.gpus - leaving * limits.gpus, limits):
                endings[one.id] = Ending(one.id, f"{others}.")
    if paused or limits.most_workers == 0:
        endings |= {one.id: Ending(one.id, "Launching was paused.") for one in waiting}
        why = "An operator paused it" if paused else "most_workers is 0"
        return Decision(0, tuple(endings.values()), f"{why}: not launching.")
    if others:
        return Decision(0, tuple(endings.values()), f"{others}: not launching.")
    if view.hindrance:
        return Decision(0, tuple(endings.values()), view.hindrance)
    held = sum(1 for one in launches if one.id not in endings or one.state is not JobState.PENDING)
    if wanted < 0:
        # The work that launches still wait for has gone: cancelled, or done by others.
        surplus = sorted(waiting, key=lambda one: one.asked_at, reverse=True)[:-wanted]
        endings |= {one.id: Ending(one.id, "Nothing waits for it any more.") for one in surplus}
    if wanted <= 0:
        return Decision(0, tuple(endings.values()), _enough(len(staying)))
    pause = pause_after(deaths)
    # A last death of the future is from before the clock was set back: the whole pause is waited at most once more.
    if deaths.last_at is not None and now < deaths.last_at + pause:
        left = min(deaths.last_at + pause - now, pause)
        often = f"{words.times(deaths.count)}{' in a row' if deaths.count > 1 else ''}"
        verdict = (
            f"A launched worker failed to come up {often}: tried again in {words.duration(left)}. {deaths.sentence}"
        )
        return Decision(0, tuple(endings.values()), verdict.rstrip())
    shared = int(view.total * limits.most_share + 1e-9) // limits.gpus
    free = max(view.idle - limits.leave_free, 0) // limits.gpus
    coming = len(waiting)
    # After a failure one is tried, and the next when that one was heard of.
    at_once = MOST_AT_ONCE if not deaths.count else int(all(one.heard_at for one in staying))
    bounds = (
        (wanted, ""),
        (at_once, "one at a time after a failure" if deaths.count else "few at a time"),
        (limits.most_workers - held, f"{held} of {limits.most_workers} workers (most_workers) are there"),
        (
            shared - held,
            f"{held} of {shared} workers are there, which is {limits.most_share:.0%} of the GPUs (most_share)",
        ),
        (min(view.room, view.idle // limits.gpus) - coming, _no_room(view, limits, coming)),
        (free - coming, f"{view.idle} {view.what} idle, of which {limits.leave_free} stay free (leave_free)"),
    )
    count, why = min(bounds, key=lambda bound: bound[0])
    jobs = f"{words.count(wanted, 'more worker')} would have work"
    if count <= 0:
        return Decision(0, tuple(endings.values()), f"{jobs}; {why}: not launching.")
    more = f" ({why})" if count < wanted else ""
    return Decision(count, tuple(endings.values()), f"{jobs}; launching {count}{more}.")


def pause_after(deaths: Deaths) -> timedelta:
    """How long nothing is launched after so many launches in a row that came to nothing."""
    if deaths.count == 0:
        return timedelta(0)
    return min(FIRST_PAUSE * int(2 ** min(deaths.count - 1, 10)), LONGEST_PAUSE)


def _overdue(
    launches: Sequence[OpenLaunch], limits: Limits, now: datetime, *, listening_since: datetime | None
) -> list[Ending]:
    """Launches that will come to nothing, or hold a GPU for nothing."""

    def unheard_for(since: datetime) -> timedelta:
        return now - (since if listening_since is None else max(since, listening_since))

    found = []
    for one in launches:
        if one.ending:
            continue
        if one.state is JobState.PENDING:
            if now - one.asked_at >= limits.pending_timeout:
                sentence = (
                    f"The cluster did not start it within {words.duration(limits.pending_timeout)}. {one.sentence}"
                )
                found.append(Ending(one.id, sentence.rstrip(), is_death=True))
        elif one.heard_at is None:
            if unheard_for(one.running_since or one.asked_at) >= limits.start_timeout:
                sentence = (
                    f"Its job runs, and the worker was not heard of within {words.duration(limits.start_timeout)}: "
                    f"see its log, and whether its host reaches the broker. {one.sentence}"
                )
                found.append(Ending(one.id, sentence.rstrip(), is_death=True))
        elif unheard_for(one.heard_at) >= limits.start_timeout:
            found.append(Ending(one.id, f"The worker fell silent {words.duration(now - one.heard_at)} ago."))
    return found


def _to_yield(staying: Sequence[OpenLaunch], gpus: int, limits: Limits) -> list[OpenLaunch]:
    """As many running workers as others want GPUs of: idle ones first, then those that started last."""
    running = sorted(
        (one for one in staying if one.state is JobState.RUNNING),
        key=lambda one: (one.busy, -one.asked_at.timestamp()),
    )
    return running[: max(-(-gpus // limits.gpus), 0)]


def _others(view: ClusterView) -> str:
    jobs = view.others.jobs
    return f"{words.count(jobs, 'job')} of others {words.agree(jobs, 'waits', 'wait')} for {view.what}"


def _enough(there: int) -> str:
    if there:
        return f"{words.count(there, 'launched worker')} {words.agree(there, 'is', 'are')} enough for what waits."
    return "No job waits that a worker here could take."


def _no_room(view: ClusterView, limits: Limits, coming: int) -> str:
    if view.idle < limits.gpus:
        return f"{view.idle} of {view.total} {view.what} idle"
    if view.room == 0:
        return f"{view.idle} {view.what} idle, but no host has {limits.gpus} with the cores and memory of a worker"
    return f"room for {view.room}, and {coming} launched before wait to start" if coming else f"room for {view.room}"
