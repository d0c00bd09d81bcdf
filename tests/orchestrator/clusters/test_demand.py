"""How many workers are wanted: as many as the plan itself would give work."""

from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.clusters.demand import Offer, count_wanted
from orchestrator.footprint import GIB, Footprint
from orchestrator.scheduling.places import Policy, QueuedJob, WorkerView
from orchestrator.wire import EngineFamily, Stage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OFFER = Offer("a100", EngineFamily.VLLM, gpus=1, gpu_memory=80 * GIB)


def job(number: int, **more: Any) -> QueuedJob:
    fields = {"stage": Stage.INFER, "engine": EngineFamily.VLLM, "created_at": NOW} | more
    return QueuedJob(id=number, evaluation=number, **fields)


def worker(name: str = "gpu-1", **more: Any) -> WorkerView:
    fields = {"slots": 1, "engine": EngineFamily.VLLM, "device_type": "cuda", "last_heartbeat": NOW} | more
    return WorkerView(name=name, boot="b", kind="engine", **fields)


def wanted(jobs: list[QueuedJob], workers: list[WorkerView] | None = None, **more: Any) -> int:
    fields = {"offer": OFFER, "starting": 0, "most": 10, "policy": Policy(), "now": NOW} | more
    return count_wanted(jobs, workers or [], **fields)


def test_each_queued_inference_wants_a_worker_up_to_the_most():
    assert wanted([job(1), job(2), job(3)]) == 3
    assert wanted([job(1), job(2), job(3)], most=2) == 2


def test_what_other_stages_and_engines_do_or_what_pauses_wants_none():
    paused = job(3, not_before=NOW + timedelta(seconds=1))
    assert wanted([job(1, stage=Stage.SCORE), job(2, engine=EngineFamily.TRANSFORMERS), paused]) == 0


def test_what_free_workers_will_take_wants_no_other():
    assert wanted([job(1)], [worker()]) == 0
    assert wanted([job(1), job(2)], [worker()]) == 1
    assert wanted([job(1)], [worker(holding=(7,))]) == 1
    assert wanted([job(1)], [worker(last_heartbeat=NOW - timedelta(hours=1))]) == 1


def test_workers_that_are_starting_count_as_there():
    assert wanted([job(1), job(2)], starting=1) == 1
    assert wanted([job(1)], starting=3) == -2
    assert wanted([], starting=2) == -2


def test_a_model_that_does_not_fit_such_a_worker_wants_none():
    large = job(1, need=Footprint(weight_bytes=140 * GIB, heads=64, key_heads=8))
    assert wanted([large]) == 0
    assert wanted([large], offer=Offer("a100", EngineFamily.VLLM, gpus=2, gpu_memory=80 * GIB)) == 1
    assert wanted([large], offer=Offer("a100", EngineFamily.VLLM, gpus=1)) == 1, "unknown memory is tried"


def test_a_job_whose_answers_lie_on_another_kind_of_device_waits_for_that():
    bound = job(1, device_type="cpu", bound=True)
    assert wanted([bound], [worker(device_type="cpu", holding=(7,))]) == 0
