"""Every waiting job says why it waits and, where anything was measured, about how long."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings

from orchestrator.footprint import GIB
from orchestrator.scheduling.estimates import Measure, Speeds, device_key
from orchestrator.scheduling.places import QueuedJob, WorkerView
from orchestrator.scheduling.reasons import Held, reason, reasons
from orchestrator.scheduling.scheduler import NO_SPEEDS, plan
from orchestrator.wire import EngineFamily, Stage
from tests.orchestrator.scheduling.builders import (
    BUSY,
    NOW,
    POLICY,
    SPEEDS,
    gpus,
    job,
    job_lists,
    needing,
    sized,
    worker,
    worker_lists,
)


def why(
    queued: list[QueuedJob], workers: list[WorkerView], *, speeds: Speeds = NO_SPEEDS, held: tuple[Held, ...] = ()
) -> dict[int, str]:
    return reasons(queued, workers, POLICY, NOW, speeds=speeds, held=held)


UNKNOWN = "no estimate yet, as nothing similar has finished"


def test_every_waiting_job_has_its_reason() -> None:
    queued = [
        job(1, evaluation=5),
        job(2, evaluation=6),
        job(3, evaluation=7),
        job(4, stage=Stage.PREPARE),
        job(5, not_before=NOW + timedelta(seconds=40)),
        job(6, engine=EngineFamily.SCRIPTED),
    ]
    workers = [worker(holding=(4,)), worker("engine-2", engine=EngineFamily.SCRIPTED)]
    assert why(queued, workers) == {
        1: f"1st; the vllm engine worker is busy with evaluation 4; {UNKNOWN}.",
        2: f"2nd; the vllm engine worker is busy with evaluation 4; {UNKNOWN}.",
        3: f"3rd; the vllm engine worker is busy with evaluation 4; {UNKNOWN}.",
        4: "No harness worker is connected.",
        5: "Tried again in 40 s.",
        6: "Next: it starts in a moment.",
    }
    assert reason(queued[2], queued=queued, workers=workers, policy=POLICY, now=NOW).startswith("3rd;")


def test_several_busy_workers_are_counted() -> None:
    workers = [worker("engine-1", holding=(4,)), worker("engine-2", holding=(5,))]
    assert why([job(1)], workers) == {1: f"1st; all 2 vllm engine workers are busy; {UNKNOWN}."}


def test_a_place_counts_evaluations_and_not_their_jobs() -> None:
    queued = [job(n, evaluation=1 if n < 4 else 2, stage=Stage.PREPARE) for n in range(1, 6)]
    workers = [worker(kind="harness", engine=None, holding=(1,))]
    assert why(queued, workers) == {
        **dict.fromkeys((1, 2, 3), "1st; the harness worker is busy with evaluation 1."),
        **dict.fromkeys((4, 5), "2nd; the harness worker is busy with evaluation 1."),
    }


def test_a_job_that_is_bound_to_answers_says_where_they_are() -> None:
    idle, busy = worker("engine-1", device_type="cpu"), worker("engine-2", device_type="cuda", holding=(9,))
    assert why([job(1, device_type="cuda")], [idle, busy]) == {
        1: "Waits for a worker on cuda, where its earlier responses were computed."
    }
    assert why([job(1, device_type="cuda", bound=True)], [idle]) == {
        1: "Waits for a worker on cuda, where the rest of it is answered; it begins anew elsewhere once none was heard "
        "of for a day."
    }


def test_a_job_whose_answers_another_computes_says_so_and_not_which() -> None:
    busy = worker("engine-1", holding=(7,), answering=((7, frozenset({"mmlu"})),))
    queued = [job(1, asks=frozenset({"mmlu", "arc"})), job(2, asks=frozenset({"gsm8k"}))]
    assert why(queued, [busy, worker("engine-2", slots=2)]) == {
        1: "Waits for another evaluation, which computes some of the same answers.",
        2: "Next: it starts in a moment.",
    }


def test_a_job_for_several_gpus_says_how_many_it_needs_and_how_many_are_idle() -> None:
    queued = [job(1, need=needing(60))]
    there = [gpus(memory_bytes=40 * GIB, slots=2, used=1, holding=(9,))]
    assert why(queued, there) == {1: f"1st; needs 2 idle GPUs with 40 GB on one host, 1 idle; {UNKNOWN}."}
    assert why(queued, [replace(there[0], used=2)])[1].startswith(
        "1st; needs 2 idle GPUs with 40 GB on one host, none idle;"
    )


def test_a_job_that_only_some_gpus_hold_says_which() -> None:
    small, large = gpus("engine-1", memory_bytes=24 * GIB), gpus("engine-2", slots=1, holding=(9,))
    queued = [job(1, need=needing(40, heads=1, key_heads=1))]
    assert why(queued, [small, large])[1].startswith("1st; needs an idle GPU with 80 GB, none idle;")


def test_a_job_that_fits_nowhere_says_what_would_hold_it() -> None:
    one = gpus(slots=1, device_count=1)
    assert why([job(1, need=needing(150))], [one]) == {
        1: "Needs 4 GPUs of 80 GB (150 GiB of weights); the largest worker has 1 of 80 GB."
    }
    assert why([job(1, need=needing(150, heads=1, key_heads=1))], [one]) == {
        1: "Needs larger GPUs (150 GiB of weights, and no more of them can share its heads); "
        "the largest worker has 1 of 80 GB."
    }
    assert why([job(1, need=needing(150))], [worker(memory_bytes=64 * GIB)]) == {
        1: "Needs a worker with more memory (150 GiB of weights); the largest has 64 GB."
    }


def test_a_job_waits_for_gpus_that_are_withheld_and_says_why_they_are() -> None:
    withheld = gpus(slots=0, sentence="Outside the window Mon-Fri 20:00-07:00.")
    assert why([job(1, need=needing(10))], [withheld]) == {
        1: "1st; waits until engine-1 may use enough of its GPUs (Outside the window Mon-Fri 20:00-07:00); no "
        "estimate yet, as nothing similar has finished."
    }
    assert why([sized(1, 60_000)], [withheld], speeds=SPEEDS) == {
        1: "1st; waits until engine-1 may use enough of its GPUs (Outside the window Mon-Fri 20:00-07:00); about "
        "11 min of work, from measured speeds of such models."
    }


def test_a_paused_worker_without_gpus_is_not_said_to_have_any() -> None:
    paused = worker(slots=0, sentence="paused by an operator")
    (said,) = why([job(1)], [paused]).values()
    assert said.startswith("1st; waits until engine-1 takes work again (paused by an operator); ")


def test_a_job_says_which_worker_is_kept_free_for_it() -> None:
    large = job(1, need=needing(260), created_at=NOW - timedelta(hours=1))
    assert why([large], [gpus(used=6, holding=(9, 8))])[1].startswith(
        "1st; engine-1 is kept free for it until enough of its GPUs are;"
    )


def test_a_refused_job_waits_for_others_that_could_hold_it() -> None:
    refused = job(1, refused_by=frozenset({("engine-1", "b")}))
    assert why([refused], [worker()]) == {1: "Waits for another vllm engine worker: engine-1 refused it."}


def test_an_estimate_adds_up_what_runs_and_waits_before_and_shares_it_out() -> None:
    """Of 100 requests/s after a minute: 120,000 requests are 21 minutes."""
    busy = gpus(slots=2, used=2, holding=(8, 9))
    held = tuple(Held(sized(number, 120_000), "engine-1") for number in (8, 9))
    queued = [sized(1, 120_000), sized(2, 240_000)]
    assert why(queued, [busy], speeds=SPEEDS, held=held) == {
        1: "1st; the vllm engine worker is busy with evaluations 8 and 9; "
        "about 21 min until it starts and 21 min of work, from measured speeds of such models.",
        2: "2nd; the vllm engine worker is busy with evaluations 8 and 9; "
        "about 32 min until it starts and 41 min of work, from measured speeds of such models.",
    }


@pytest.mark.parametrize(("stage", "step"), [(Stage.PREPARE, "preparing"), (Stage.SCORE, "scoring")])
def test_the_time_of_a_step_beside_the_engine_is_not_taken_for_the_whole_work(stage: Stage, step: str) -> None:
    busy = worker("harness-1", used=1, holding=(9,))
    speeds = Speeds([Measure(EngineFamily.VLLM, stage.value, "s", 32, 2, 6000, 60.0, 4.0)])
    held = (Held(sized(9, 1000, stage=stage), "harness-1"),)
    assert why([sized(1, 1000, stage=stage)], [busy], speeds=speeds, held=held) == {
        1: "1st; the harness worker is busy with evaluation 9; "
        f"about 12 s until it starts and 12 s of {step}, from measured runs."
    }


def test_an_estimate_that_knows_only_part_of_what_is_before_it_says_at_least() -> None:
    busy = gpus(slots=1, used=1, holding=(9,))
    held = (Held(job(9), "engine-1"), Held(sized(8, 12_000), "engine-1"))
    assert (
        "at least 3 min until it starts and 21 min of work"
        in why([sized(1, 120_000)], [busy], speeds=SPEEDS, held=held)[1]
    )


def test_a_speed_is_scaled_by_size_and_taken_from_no_model_much_larger_or_smaller() -> None:
    known = SPEEDS.of(sized(1, 60_000), "a GPU")
    assert known is not None
    assert (known.answering, known.start, known.runs) == (timedelta(minutes=10), timedelta(minutes=1), 2)
    assert known.same_size
    larger = SPEEDS.of(replace(sized(1, 60_000), parameters=20_000_000_000), "a GPU")
    assert larger is not None
    assert (larger.answering, larger.same_size) == (timedelta(minutes=40), False)
    assert SPEEDS.of(replace(sized(1, 60_000), parameters=400_000_000_000), "a GPU") is None
    assert SPEEDS.of(replace(sized(1, 60_000), parameters=None), "a GPU") is None
    assert SPEEDS.of(sized(1, 60_000), "another GPU") is None
    assert SPEEDS.of(sized(1, 0), "a GPU") is None


def test_a_suite_that_was_not_measured_counts_as_all_others_together() -> None:
    speeds = Speeds(
        [
            Measure(EngineFamily.VLLM, "a GPU", "s", 32, 1, 1000, 10.0, 5.0),
            Measure(EngineFamily.VLLM, "a GPU", "t", 32, 1, 1000, 90.0, 15.0),
        ]
    )
    found = speeds.of(replace(sized(1, 200), suite="u"), "a GPU")
    assert found is not None
    assert (found.answering, found.start, found.same_suite) == (timedelta(seconds=10), timedelta(seconds=10), False)


def test_a_device_is_measured_by_how_many_an_engine_uses() -> None:
    assert (device_key("a GPU", 1), device_key("a GPU", 2)) == ("a GPU", "2 × a GPU")


@settings(BUSY)
@given(job_lists, worker_lists)
def test_every_queued_job_has_a_reason_and_those_chosen_are_next(
    queued: list[QueuedJob], workers: list[WorkerView]
) -> None:
    found = why(queued, workers, speeds=SPEEDS)
    assert set(found) == {job.id for job in queued}
    chosen = {assignment.job.id for assignment in plan(queued, workers, POLICY, NOW, speeds=SPEEDS)}
    assert {id for id, text in found.items() if text.startswith("Next")} == chosen
    assert all(text.endswith(".") and ".." not in text for text in found.values())
