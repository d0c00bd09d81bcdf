from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.canaries.builds import Entry
from orchestrator.clusters.demand import Offer, count_wanted
from orchestrator.scheduling.places import QueuedJob, WorkerView
from orchestrator.scheduling.reasons import reason
from orchestrator.scheduling.scheduler import plan
from orchestrator.wire import EngineFamily, Stage
from tests.orchestrator.scheduling.builders import BUSY, NOW, POLICY, job, job_lists, pairs, worker, worker_lists

builds = st.sampled_from(["old", "new"])


@BUSY
@given(job_lists, worker_lists, st.data())
def test_who_waits_for_a_canary_gets_nothing_else_and_a_canary_goes_to_its_build_alone(
    queued: list[QueuedJob], workers: list[WorkerView], data: st.DataObject
) -> None:
    jobs = [
        replace(one, canary_on=data.draw(builds)) if one.stage is Stage.CANARY else one for one in queued
    ]  # fmt: skip
    crew = [replace(one, build=data.draw(builds), entry=data.draw(st.sampled_from(Entry))) for one in workers]
    for chosen in plan(jobs, crew, POLICY, NOW):
        if chosen.job.canary_on:
            assert chosen.worker.build == chosen.job.canary_on
        elif chosen.worker.kind == "engine":
            assert chosen.worker.entry is Entry.OPEN


def test_a_job_goes_to_the_build_that_has_passed_and_past_the_one_that_has_not() -> None:
    waiting = worker("engine-1", build="new", entry=Entry.WAITS)
    passed = worker("engine-2", build="old")
    assert pairs([job(1), job(2)], [waiting, passed]) == [(1, "engine-2")]
    canary = job(3, stage=Stage.CANARY, canary_on="new")
    assert pairs([job(1), canary], [waiting, passed]) == [(1, "engine-2"), (3, "engine-1")]


def test_a_canary_without_a_worker_of_its_build_says_so() -> None:
    canary = job(1, stage=Stage.CANARY, canary_on="new")
    assert reason(canary, queued=[], workers=[worker(build="old")], policy=POLICY, now=NOW) == (
        "Waits for a vllm engine worker of its build."
    )


def test_a_cluster_launches_no_more_while_a_canary_holds_what_it_launched() -> None:
    offer = Offer("a100", EngineFamily.VLLM, 1)

    def wanted(entry: Entry, *, silent_minutes: int = 0, **more: object) -> int:
        up = replace(
            worker("launched-1", build="new", entry=entry, used=1, **more),
            last_heartbeat=NOW - timedelta(minutes=silent_minutes),
        )
        return count_wanted(
            [job(1), job(2)], [up], offer=offer, starting=0, most=4, policy=POLICY, now=NOW, launched={"launched-1"}
        )

    assert (wanted(Entry.OPEN), wanted(Entry.WAITS), wanted(Entry.KEPT_OUT)) == (2, 0, 0)
    # Once it leaves, as it has nothing to do, others would come and leave all night.
    assert (wanted(Entry.OPEN, stopping=True), wanted(Entry.KEPT_OUT, stopping=True)) == (2, 0)
    assert wanted(Entry.WAITS, stopping=True) == 1, "who would answer the canary?"
    assert wanted(Entry.KEPT_OUT, silent_minutes=10) == 0
    assert wanted(Entry.KEPT_OUT, silent_minutes=60) == 1
