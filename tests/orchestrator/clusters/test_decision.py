"""The decision alone: given what a cluster shows, how many workers are launched or ended, and why."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.clusters.contract import ClusterView, JobState, Waiting
from orchestrator.clusters.decision import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MOST_AT_ONCE,
    Deaths,
    Decision,
    Limits,
    OpenLaunch,
    decide,
    pause_after,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDLE = ClusterView(what="gpu:a100", total=8, idle=8, room=8)


def launch(number: int, state: JobState = JobState.RUNNING, *, seconds: float = 30, **more: Any) -> OpenLaunch:
    asked_at = NOW - timedelta(seconds=seconds)
    heard_at = NOW if state is JobState.RUNNING else None
    fields = {"asked_at": asked_at, "running_since": asked_at, "heard_at": heard_at} | more
    return OpenLaunch(f"{number:010x}", state, **fields)


def decision(view: ClusterView = IDLE, *launches: OpenLaunch, **more: Any) -> Decision:
    fields: dict[str, Any] = {"wanted": 2, "limits": Limits(), "deaths": Deaths(), "now": NOW} | more
    return decide(view, launches, **fields)


def ended(found: Decision) -> set[int]:
    return {int(one.launch, 16) for one in found.endings}


def test_as_many_workers_are_launched_as_queued_jobs_could_keep_busy():
    assert decision(wanted=2) == Decision(2, (), "2 more workers would have work; launching 2.")


def test_nothing_is_launched_when_nothing_waits():
    assert decision(wanted=0).verdict == "No job waits that a worker here could take."
    assert decision(IDLE, launch(1), wanted=0).verdict == "1 launched worker is enough for what waits."


def test_nothing_is_launched_while_jobs_of_others_wait_for_the_gpus():
    view = replace(IDLE, others=Waiting(3, 5, NOW))
    found = decision(view)
    assert (found.launch, found.verdict) == (0, "3 jobs of others wait for gpu:a100: not launching.")


def test_what_the_cluster_has_not_started_is_withdrawn_when_others_wait():
    view = replace(IDLE, others=Waiting(1, 1, NOW))
    found = decision(view, launch(1, JobState.PENDING), launch(2))
    assert ended(found) == {1}


def test_workers_yield_as_many_gpus_as_others_have_wanted_for_a_minute_the_idle_ones_first():
    view = replace(IDLE, idle=0, room=0, others=Waiting(1, 3, NOW - timedelta(seconds=60)))
    there = (launch(1, seconds=10, busy=True), launch(2, seconds=90, busy=False), launch(3, seconds=50, busy=True))
    assert ended(decision(view, *there, limits=Limits(gpus=2))) == {1, 2}
    earlier = replace(view, others=Waiting(1, 3, NOW - timedelta(seconds=59)))
    assert ended(decision(earlier, *there, limits=Limits(gpus=2))) == set()


@pytest.mark.parametrize(
    ("view", "limits", "launched", "reason"),
    [
        (replace(IDLE, idle=0, room=0), Limits(), 0, "0 of 8 gpu:a100 idle"),
        (replace(IDLE, room=0), Limits(), 0, "no host has 1 with the cores and memory of a worker"),
        (replace(IDLE, idle=3, room=3), Limits(leave_free=2), 1, "2 stay free (leave_free)"),
        (replace(IDLE, idle=2, room=2), Limits(leave_free=2), 0, "2 stay free (leave_free)"),
        (IDLE, Limits(most_workers=1), 1, "0 of 1 workers (most_workers) are there"),
        (IDLE, Limits(most_share=0.25, gpus=2), 1, "25% of the GPUs (most_share)"),
        (IDLE, Limits(gpus=4, most_workers=9), 2, ""),
        (replace(IDLE, hindrance="Partition x is not up: not launching."), Limits(), 0, "is not up"),
    ],
)
def test_every_limit_holds_and_is_named(view: ClusterView, limits: Limits, launched: int, reason: str):
    found = decision(view, wanted=2, limits=limits)
    assert found.launch == launched
    assert reason in found.verdict


def test_gpus_that_earlier_launches_will_take_are_not_counted_twice():
    view = replace(IDLE, idle=2, room=2)
    found = decision(view, launch(1, JobState.PENDING), wanted=3)
    assert found.launch == 1


def test_a_launch_that_nothing_waits_for_any_more_is_withdrawn_and_a_running_worker_is_not():
    pending = [launch(1, JobState.PENDING, seconds=20), launch(2, JobState.PENDING, seconds=10)]
    assert ended(decision(IDLE, *pending, launch(3), wanted=-1)) == {2}
    assert ended(decision(IDLE, *pending, launch(3), wanted=-2)) == {1, 2}


def test_after_launches_that_came_to_nothing_one_is_tried_at_a_time_after_ever_longer_pauses():
    deaths = Deaths(2, NOW - timedelta(seconds=119), "Slurm says FAILED.")
    waiting = decision(deaths=deaths)
    assert waiting.launch == 0
    assert "failed to come up twice in a row: tried again in 1 s. Slurm says FAILED." in waiting.verdict
    old = replace(deaths, last_at=NOW - timedelta(seconds=120))
    assert decision(deaths=old).launch == 1
    tried = decision(IDLE, launch(1, heard_at=None), deaths=old)
    assert (tried.launch, "one at a time after a failure" in tried.verdict) == (0, True)
    assert decision(IDLE, launch(1), deaths=old).launch == 1
    assert [pause_after(Deaths(count)) for count in (0, 1, 2, 7, 100)] == [
        timedelta(0), FIRST_PAUSE, 2 * FIRST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE,
    ]  # fmt: skip


def test_a_clock_set_back_delays_a_launch_by_one_pause_at_most():
    deaths = Deaths(1, NOW + timedelta(days=1))
    assert "tried again in 60 s" in decision(deaths=deaths).verdict


@pytest.mark.parametrize(
    ("overdue", "is_death"),
    [
        (launch(1, JobState.PENDING, seconds=120, sentence="Slurm says QOSMaxJobs."), True),
        (launch(1, seconds=600, heard_at=None), True),
        (launch(1, seconds=9000, heard_at=NOW - timedelta(minutes=10)), False),
    ],
)
def test_a_launch_that_holds_or_waits_for_a_gpu_in_vain_is_ended(overdue: OpenLaunch, is_death: bool):
    (found,) = decision(IDLE, overdue).endings
    assert found.is_death is is_death
    assert decision(IDLE, replace(overdue, ending=True)).endings == ()


def test_while_paused_nothing_is_launched_and_working_workers_stay():
    found = decision(IDLE, launch(1), launch(2, JobState.PENDING), paused=True)
    assert (found.launch, ended(found)) == (0, {2})
    assert found.verdict == "An operator paused it: not launching."


@given(
    total=st.integers(0, 40),
    idle=st.integers(0, 40),
    room=st.integers(0, 40),
    wanted=st.integers(-5, 60),
    others=st.integers(0, 2),
    limits=st.builds(
        Limits,
        gpus=st.integers(1, 8),
        most_workers=st.integers(0, 10),
        leave_free=st.integers(0, 5),
        most_share=st.floats(0.01, 1),
    ),
    states=st.lists(st.sampled_from(JobState), max_size=10),
    deaths=st.integers(0, 3),
)
def test_no_launch_ever_exceeds_what_is_idle_allowed_and_wanted(
    total: int, idle: int, room: int, wanted: int, others: int, limits: Limits, states: list[JobState], deaths: int
):
    idle = min(idle, total)
    view = ClusterView("gpu", total, idle, room, Waiting(others, others, NOW if others else None))
    there = [launch(number, state) for number, state in enumerate(states) if state is not JobState.ENDED]
    found = decision(view, *there, wanted=wanted, limits=limits, deaths=Deaths(deaths, NOW - LONGEST_PAUSE))
    pending = sum(1 for one in there if one.state is JobState.PENDING)
    assert 0 <= found.launch <= max(wanted, 0)
    assert found.launch <= (1 if deaths else MOST_AT_ONCE)
    if found.launch:
        assert not others
        assert found.launch + len(there) <= limits.most_workers
        assert (found.launch + pending) * limits.gpus <= idle - limits.leave_free
        assert found.launch + pending <= room
        assert (found.launch + len(there)) * limits.gpus <= total * limits.most_share + 1e-6
    assert found.verdict
    known = {one.id for one in there}
    assert {one.launch for one in found.endings} <= known


def test_silence_that_the_hub_could_not_have_heard_ends_nobody():
    silent = launch(1, seconds=3600, heard_at=NOW - timedelta(minutes=15))
    unheard = launch(2, seconds=900, heard_at=None)
    assert ended(decision(IDLE, silent, unheard)) == {1, 2}
    for minutes, expected in ((1, set()), (11, {1, 2})):
        listening = NOW - timedelta(minutes=minutes)
        assert ended(decision(IDLE, silent, unheard, listening_since=listening)) == expected


def test_a_paused_cluster_still_gives_way_to_others():
    view = replace(IDLE, idle=0, room=0, others=Waiting(1, 1, NOW - timedelta(minutes=2)))
    found = decision(view, launch(1), paused=True)
    assert (ended(found), found.launch, found.verdict) == ({1}, 0, "An operator paused it: not launching.")


def test_workers_that_are_leaving_already_count_for_what_others_want():
    view = replace(IDLE, idle=0, room=0, others=Waiting(1, 2, NOW - timedelta(minutes=2)))
    there = [launch(number) for number in range(1, 5)]
    victims = ended(decision(view, *there))
    assert len(victims) == 2
    leaving = [replace(one, ending=int(one.id, 16) in victims) for one in there]
    assert ended(decision(view, *leaving)) == set()
