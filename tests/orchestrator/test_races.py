"""Several control processes at the same moment: one attempt for a job, no worker over its slots, no stage forgotten."""

import threading

from orchestrator.claims import Claim
from orchestrator.wire import Stage
from tests.orchestrator.yard import Yard


def test_two_controls_that_claim_the_same_job_make_exactly_one_attempt(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.beat("harness-1", slots=100)
    job = yard.job(evaluation, Stage.PREPARE, "ARC")
    assert job.id is not None
    barrier = threading.Barrier(6)
    results: list[bool] = []

    def claim(number: int) -> None:
        barrier.wait()
        results.append(yard.claim(Claim(job.id or 0, f"attempt-{number}", worker="harness-1", boot="first")))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 5 + [True]
    assert len(yard.attempts(job)) == 1


def test_two_controls_never_give_a_worker_more_than_it_has_slots(yard: Yard) -> None:
    evaluations = [yard.submit() for _ in range(3)]
    yard.beat("harness-1", slots=2)
    barrier = threading.Barrier(3)

    def dispatch() -> None:
        barrier.wait()
        yard.dispatcher().dispatch(yard.now)

    threads = [threading.Thread(target=dispatch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(yard.sent), yard.held()) == (2, 2)
    assert len(evaluations) == 3


def test_reports_of_two_benchmarks_at_the_same_moment_still_open_the_next_stage(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.workers()
    orders = yard.tick()
    barrier = threading.Barrier(2)

    def complete(index: int) -> None:
        barrier.wait()
        yard.complete(orders[index])

    threads = [threading.Thread(target=complete, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert yard.states(evaluation)["infer"] == "queued"


def test_a_worker_that_was_started_again_since_it_was_chosen_gets_nothing(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.beat("harness-1", boot="second")
    job = yard.job(evaluation, Stage.PREPARE, "ARC")
    assert not yard.claim(Claim(job.id or 0, "a", worker="harness-1", boot="first"))
