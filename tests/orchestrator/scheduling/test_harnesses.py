"""Prepare and score go only where their harness is, and a job that no worker can take says which is missing."""

from orchestrator.scheduling.places import hopeless
from orchestrator.scheduling.reasons import reason
from orchestrator.wire import Stage
from tests.orchestrator.scheduling.builders import NOW, POLICY, job, pairs, worker

OLD, NEW = "lm_eval 0.4.13", "lm_eval 0.4.14"


def prepare(id: int, harness: str = NEW, **fields):
    return job(id, stage=Stage.PREPARE, harness=harness, **fields)


def test_a_job_goes_to_the_worker_that_has_its_harness() -> None:
    workers = [worker("harness-1", harnesses=(OLD,)), worker("harness-2", harnesses=(OLD, NEW))]
    assert pairs([prepare(1)], workers) == [(1, "harness-2")]


def test_a_missing_harness_holds_up_only_the_jobs_that_need_it() -> None:
    workers = [worker("harness-1", harnesses=(OLD,))]
    assert pairs([prepare(1), prepare(2, OLD), prepare(3, "")], workers) == [(2, "harness-1")]
    assert pairs([prepare(1), prepare(3, "")], workers) == [(3, "harness-1")]


def test_a_worker_that_does_not_say_what_it_has_is_given_any_work() -> None:
    assert pairs([prepare(1)], [worker("harness-1")]) == [(1, "harness-1")]


def test_the_reason_names_the_harness_and_the_command_that_adds_it() -> None:
    workers = [worker("harness-1", harnesses=(OLD,))]
    said = reason(prepare(1), queued=[], workers=workers, policy=POLICY, now=NOW)
    assert said == (
        "Needs lm_eval 0.4.14, which no connected worker has: add it on a worker's host with "
        "evalyard harness add lm-eval==0.4.14."
    )


def test_a_job_is_hopeless_only_when_every_worker_with_its_harness_refused_it() -> None:
    refused = prepare(1, refused_by=frozenset({("harness-1", "b")}))
    both = [worker("harness-1", harnesses=(NEW,)), worker("harness-2", harnesses=(NEW,))]
    assert hopeless(refused, both, POLICY, NOW) == []
    assert hopeless(refused, [both[0], worker("harness-2", harnesses=(OLD,))], POLICY, NOW) == ["harness-1"]
