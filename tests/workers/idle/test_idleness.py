"""The policy of idleness as a pure function: readings in, verdicts out."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.wire import Gpu, GpuState
from workers.idle.gpus import GpuProcess, Reading
from workers.idle.idleness import (
    BLIND_SECONDS,
    GAP_SECONDS,
    USABLE,
    Closure,
    GpuPolicy,
    Own,
    Seen,
    judge,
    leave,
    observe,
)

GB = 10**9
MINUTE = 60.0


def someone(pid: int = 4211, memory: int | None = 31 * GB, *, same_user: bool = False) -> GpuProcess:
    return GpuProcess(pid, memory, pid, same_user)


def reading(index: int = 0, *processes: GpuProcess, used: int | None = None, utilisation: float = 0.0) -> Reading:
    held = sum(process.memory_bytes or 0 for process in processes)
    return Reading(index, "GPU", "GPU-0", held if used is None else used, 80 * GB, utilisation, processes)


@dataclass
class Host:
    """GPUs looked at every few seconds, with what is remembered of each."""

    policy: GpuPolicy = field(default_factory=GpuPolicy)
    now: float = 1000.0
    seen: dict[int, Seen] = field(default_factory=dict)

    def look(self, *readings: Reading, own: Own | None = None, closure: Closure | None = None) -> list[Gpu]:
        own = own or Own()
        for one in readings:
            self.seen[one.index] = observe(self.seen.get(one.index), one, own, policy=self.policy, now=self.now)
        return judge([self.seen[one.index] for one in readings], own, self.policy, now=self.now, closure=closure)

    def after(self, seconds: float, *readings: Reading, own: Own | None = None) -> Gpu:
        """The first verdict when the GPUs were so for so long, looked at every two seconds."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 2, end)
            found = self.look(*readings, own=own)
        return found[0]


@pytest.fixture
def idle() -> Host:
    """A host with one GPU that is idle for long."""
    host = Host()
    host.look(reading())
    assert host.after(6 * MINUTE, reading()).state is GpuState.IDLE
    return host


def test_a_gpu_is_idle_only_when_nobody_used_it_for_all_of_five_minutes() -> None:
    host = Host()
    (first,) = host.look(reading())
    assert (first.state, first.sentence) == (GpuState.WAITING, "idle for 0 of 5 minutes")
    verdict = host.after(3.5 * MINUTE, reading())
    assert (verdict.state, verdict.sentence) == (GpuState.WAITING, "idle for 3 of 5 minutes")
    host.look(reading(0, utilisation=40))
    verdict = host.after(4 * MINUTE, reading())
    assert (verdict.state, verdict.sentence) == (GpuState.WAITING, "idle for 3 of 5 minutes")
    assert host.after(1.1 * MINUTE, reading()).state is GpuState.IDLE


@pytest.mark.parametrize(
    ("there", "state", "sentence"),
    [
        (reading(0, someone(), utilisation=90), "busy", "busy: another user's process 4211 holds 31 GB"),
        (reading(0, someone()), "held", "held: another user's process 4211 holds 31 GB and computes nothing"),
        (
            reading(0, someone(same_user=True), utilisation=90),
            "busy",
            "busy: another process 4211 holds 31 GB",
        ),
        (reading(0, someone(1, GB), someone(2, GB), utilisation=9), "busy", "busy: 2 processes of others hold 2 GB"),
        (reading(0, someone(1, None)), "held", "held: another user's process 1 holds memory and computes nothing"),
        (reading(0, used=3 * GB), "held", "held: 3 GB in use by no process that can be seen"),
        (reading(0, utilisation=70), "busy", "busy: 70 % computing, by no process that can be seen"),
        (Reading(0, fault="the GPU fell off the bus"), "unknown", "not known to be idle: the GPU fell off the bus"),
    ],
)
def test_each_way_of_not_being_idle_is_told_apart_and_ends_the_idleness_at_once(
    idle: Host, there: Reading, state: str, sentence: str
) -> None:
    idle.now += 2
    (verdict,) = idle.look(there)
    assert (verdict.state, verdict.sentence) == (state, sentence)
    assert idle.after(4 * MINUTE, reading()).state is GpuState.WAITING


def test_our_own_work_is_told_from_others_by_its_process_group(idle: Host) -> None:
    own = Own(groups=frozenset({77}), devices=frozenset({0}))
    ours = GpuProcess(78, 70 * GB, group=77)
    assert idle.after(2, reading(0, ours, utilisation=100), own=own).state is GpuState.OURS
    verdict = idle.after(2, reading(0, ours, someone(memory=GB), utilisation=100), own=own)
    assert (verdict.state, verdict.sentence) == (GpuState.BUSY, "busy: another user's process 4211 holds 1 GB")


def test_a_process_whose_group_cannot_be_seen_is_not_ours(idle: Host) -> None:
    own = Own(groups=frozenset({77}), devices=frozenset({0}))
    stranger = GpuProcess(5, GB, group=None)
    assert idle.after(2, reading(0, stranger), own=own).state is GpuState.BUSY


def test_after_our_own_work_a_gpu_is_idle_without_another_wait(idle: Host) -> None:
    own = Own(groups=frozenset({77}), devices=frozenset({0}))
    ours = GpuProcess(78, 70 * GB, group=77)
    idle.after(10 * MINUTE, reading(0, ours, utilisation=100), own=own)
    ending = idle.after(2, reading(0, used=40 * GB, utilisation=60))
    assert (ending.state, ending.sentence) == (GpuState.LEAVING, "Evalyard has just left it: 40 GB not free yet")
    assert idle.after(2, reading()).state is GpuState.IDLE


def test_memory_that_our_own_work_leaves_behind_keeps_the_gpu_from_use(idle: Host) -> None:
    idle.after(60, reading(0, GpuProcess(78, 70 * GB, group=77)), own=Own({77}, {0}))
    assert idle.after(20, reading(0, used=40 * GB)).state is GpuState.HELD


def test_a_gpu_that_was_given_back_is_leaving_until_its_memory_is_seen_free(idle: Host) -> None:
    own = Own(groups=frozenset({77}), devices=frozenset({0}))
    ours, other = GpuProcess(78, 70 * GB, group=77), someone(memory=GB)
    idle.after(2, reading(0, ours, other), own=own)
    idle.seen[0] = leave(idle.seen[0], now=idle.now)
    verdict = idle.after(6, reading(0, ours, other), own=own)
    assert (verdict.state, verdict.sentence) == (
        GpuState.LEAVING,
        "given back 6 s ago: 70 GB still in use by Evalyard's process 78",
    )
    assert idle.after(2, reading(0, other, used=30 * GB), own=Own()).state is GpuState.HELD
    assert idle.seen[0].leaving_since is not None, "29 GB of it are nobody's that is known: ours are not free"
    idle.after(2, reading(0, other))
    assert idle.seen[0].leaving_since is None


def test_one_failed_reading_does_not_end_our_own_work_and_lasting_blindness_does(idle: Host) -> None:
    own = Own(groups=frozenset({77}), devices=frozenset({0}))
    ours = reading(0, GpuProcess(78, 70 * GB, group=77))
    blind = Reading(0, fault="the NVIDIA driver answers 'Timeout'")
    idle.after(2, ours, own=own)
    assert idle.after(4, blind, own=own).state is GpuState.OURS
    assert idle.after(2, ours, own=own).state is GpuState.OURS
    assert idle.after(BLIND_SECONDS + 2, blind, own=own).state is GpuState.UNKNOWN


def test_time_without_a_look_is_no_time_of_idleness(idle: Host) -> None:
    idle.now += GAP_SECONDS + 1
    assert idle.look(reading())[0].sentence == "idle for 0 of 5 minutes"


def test_a_part_of_a_gpu_is_judged_by_its_processes_and_memory(idle: Host) -> None:
    part = Reading(0, memory_total=10 * GB, utilisation=None)
    assert idle.after(2, part).state is GpuState.IDLE
    busy = Reading(0, memory_used=GB, memory_total=10 * GB, utilisation=None, processes=(someone(memory=GB),))
    assert idle.after(2, busy).state is GpuState.BUSY


def test_a_policy_of_always_needs_no_reading(idle: Host) -> None:
    idle.policy = GpuPolicy(is_always=True)
    for there in (Reading(0, fault="no driver"), reading(0, someone(), utilisation=90)):
        assert idle.after(2, there).state is GpuState.IDLE


def test_outside_the_window_nothing_is_usable_and_a_busy_gpu_still_says_who_is_on_it(idle: Host) -> None:
    closure = Closure("outside the window Mon-Fri 20:00-07:00; opens Mon 20:00")
    idle.after(2, reading(0), reading(1, someone(), utilisation=90))
    free, busy = idle.look(reading(0), reading(1, someone(), utilisation=90), closure=closure)
    assert (free.state, free.sentence) == (GpuState.CLOSED, closure.sentence)
    assert busy.state is GpuState.BUSY


def test_a_drained_worker_ends_what_runs_and_a_paused_one_does_not(idle: Host) -> None:
    own = Own(groups=frozenset({77}), devices=frozenset({0}))
    ours = reading(0, GpuProcess(78, 70 * GB, group=77))
    idle.look(ours, own=own)
    assert idle.look(ours, own=own, closure=Closure("drained", is_gentle=True))[0].state is GpuState.OURS
    assert idle.look(ours, own=own, closure=Closure("paused"))[0].state is GpuState.CLOSED


def four(host: Host, *taken: int, own: Own | None = None) -> list[str]:
    found = host.look(*(reading(i, someone(), utilisation=9) if i in taken else reading(i) for i in range(4)), own=own)
    return [gpu.state.value for gpu in found]


@pytest.fixture
def generous() -> Host:
    """Four GPUs, idle for long, of which one is left free."""
    host = Host(GpuPolicy(left_free=1))
    host.after(6 * MINUTE, *(reading(i) for i in range(4)))
    return host


def test_a_gpu_left_free_is_always_there_for_others(generous: Host) -> None:
    assert four(generous) == ["idle", "idle", "idle", "left_free"]
    assert four(generous, 3) == ["idle", "idle", "left_free", "busy"], "one was taken: another one is free for the next"
    generous.now += 2
    assert four(generous) == ["idle", "idle", "idle", "waiting"], "the one given up is free, if not idle for long"


def test_of_gpus_in_use_none_is_given_up_while_another_is_free(generous: Host) -> None:
    own = Own(devices=frozenset({2, 3}))
    assert four(generous, own=own) == ["idle", "left_free", "ours", "ours"]
    assert four(generous, 0, 1, own=own) == ["busy", "busy", "ours", "left_free"]


looks = st.lists(
    st.tuples(
        st.sampled_from([2.0, 10.0, 40.0, 200.0]),
        st.integers(0, 2),
        st.integers(0, 3 * GB),
        st.sampled_from([0.0, 4.0, 50.0]),
        st.booleans(),
    ),
    max_size=40,
)


@given(looks, st.sets(st.integers(0, 2)), st.integers(0, 3))
def test_a_usable_gpu_never_has_a_process_of_others_or_a_fault_that_lasts(
    history: list[tuple[float, int, int, float, bool]], groups: set[int], left_free: int
) -> None:
    host = Host(GpuPolicy(left_free=left_free))
    own = Own(groups=groups)
    for seconds, group, memory, utilisation, is_blind in history:
        host.now += seconds
        processes = (GpuProcess(group + 100, memory, group),) if memory else ()
        there = (
            Reading(0, fault="blind") if is_blind else Reading(0, "GPU", "", memory, 80 * GB, utilisation, processes)
        )
        for gpu in host.look(there, own=own):
            if gpu.state in USABLE and not is_blind:
                assert not processes or group in groups
                assert utilisation <= 5 or group in groups
            assert gpu.sentence
