"""Two evaluations that ask the same of a model do not compute it twice at once."""

from dataclasses import replace
from datetime import timedelta

from tests.orchestrator.scheduling.builders import NOW, POLICY, job, pairs, worker


def test_a_job_waits_while_another_evaluation_computes_what_it_asks() -> None:
    asks = frozenset({"mmlu", "arc"})
    busy = worker("engine-1", holding=(7,), answering=((7, frozenset({"mmlu"})),))
    queued = [job(1, asks=asks), job(2, asks=frozenset({"gsm8k"}))]
    assert pairs(queued, [busy, worker("engine-2", slots=2)]) == [(2, "engine-2")]
    answered = replace(busy, answering=((7, frozenset()),))
    assert [id for id, _ in pairs(queued, [answered, worker("engine-2", slots=2)])] == [1, 2]


def test_a_job_does_not_wait_for_answers_that_it_could_not_use() -> None:
    asks = frozenset({"mmlu"})
    busy = worker("engine-1", holding=(7,), answering=((7, asks),), device_type="cuda:1")
    free = [worker("engine-2", device_type="cuda:1"), worker("engine-3", device_type="cpu")]
    assert pairs([job(1, asks=asks)], [busy, *free]) == [(1, "engine-3")]
    bound = job(1, asks=asks, device_type="cuda:1")
    assert pairs([bound], [busy, *free]) == []
    assert pairs([job(1, asks=asks, device_type="cpu")], [busy, *free]) == [(1, "engine-3")]


def test_a_job_does_not_wait_for_one_that_is_not_computed_yet() -> None:
    asks = frozenset({"mmlu"})
    away = worker("engine-1", device_type="cuda:1", last_heartbeat=NOW - POLICY.silent_after * 2)
    queued = [job(1, asks=asks, device_type="cuda:1"), job(2, asks=asks)]
    assert pairs(queued, [away, worker("engine-2")]) == [(2, "engine-2")]


def test_those_that_wait_for_answers_keep_no_place_from_those_behind_them() -> None:
    asks = frozenset({"mmlu"})
    busy = worker("engine-1", holding=(7,), answering=((7, asks),))
    queued = [job(1, asks=asks), job(2, asks=asks), job(3), job(4, asks=frozenset({"arc"}))]
    assert pairs(queued, [busy, worker("engine-2")]) == [(3, "engine-2")]
    assert pairs(queued[:2] + queued[3:], [busy, worker("engine-2")]) == [(4, "engine-2")]


def test_of_jobs_that_ask_the_same_the_most_urgent_goes_first_and_slices_go_together() -> None:
    same = frozenset({"mmlu"})
    queued = [job(2, asks=same), job(1, asks=same), job(3, evaluation=1, asks=same)]
    assert [id for id, _ in pairs(queued, [worker(slots=3)])] == [1, 3]
    paused = replace(queued[1], not_before=NOW + timedelta(minutes=1))
    assert [id for id, _ in pairs([queued[0], paused], [worker(slots=3)])] == [2]
