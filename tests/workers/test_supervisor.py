"""The supervisor with real stage programs (scripted engine) and a real artifact store; only the hub is a stand-in."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.artifacts import model_folder_digest
from orchestrator.wire import FailureKind, InferDone, Model, Precision
from tests.services import wait_until
from tests.tiny import build_tiny_model
from tests.workers.bench import Bench, slow
from tests.workers.downloads import MODEL_BYTES, Host, hub_with_models, model
from workers.models.weights import Weights
from workers.supervisor import Supervisor


def test_an_order_ends_with_every_response_in_the_store_and_the_scratch_folder_empty(bench: Bench):
    bench.supervisor.run(bench.order("a1"))
    assert bench.hub.events == ["started", "completed"]
    done = bench.hub.updates[-1].done
    assert isinstance(done, InferDone)
    assert (done.computed, done.reused) == (40, 0)
    assert sorted(bench.answered()) == sorted(request.id for request in bench.requests)
    assert list((bench.scratch / "test").iterdir()) == []


def test_an_order_that_comes_twice_runs_once(bench: Bench):
    bench.supervisor.run(bench.order("a1"))
    bench.supervisor.run(bench.order("a1"))
    assert bench.hub.events == ["started", "completed"]


def test_a_second_attempt_computes_only_what_no_segment_holds(bench: Bench):
    first = bench.start(bench.order("a1", settings=slow(0.05)))
    wait_until(lambda: len(bench.answered()) >= 8, "some responses are sealed")
    bench.hub.stops["a1"] = "preempted"
    first.join()
    kept = len(bench.answered())
    assert 8 <= kept < 40
    bench.supervisor.run(bench.order("a2"))
    done = bench.hub.updates[-1].done
    assert isinstance(done, InferDone)
    assert (done.computed, done.reused) == (40 - kept, kept)
    assert len(bench.answered()) == len(set(bench.answered())) == 40


def test_an_attempt_without_room_beside_what_others_use_is_released_with_the_reason(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with hub_with_models(monkeypatch, tmp_path):
        host = Host(tmp_path, limit=MODEL_BYTES + 1000)
        supervisor = Supervisor(bench.settings, hub=bench.hub, store=bench.store, weights=host.weights)
        with host.weights.used_by("other"):
            host.fetch("org/a", attempt="other")
            supervisor.run(bench.order("a1", model=model("org/b")))
    released = bench.hub.updates[-1]
    assert (released.event, released.failure) == ("released", FailureKind.STORAGE)
    assert "find no room" in released.sentence


class LongDownload(Weights):
    """Weights that come when `arrive` is set."""

    arrive = threading.Event()

    def resolve(self, *args: Any, **more: Any) -> Any:
        self.arrive.wait(60)
        return super().resolve(*args, **more)


def test_a_device_is_taken_when_the_weights_are_there_and_a_download_for_one_that_others_use_is_left(
    bench: Bench, tmp_path: Path
):
    bench.weights = LongDownload(mirror=None, token=None, digests=tmp_path / "known.json")
    devices = bench.give_devices(1)
    fetching = bench.start(bench.order("a1"))
    wait_until(lambda: bench.hub.events == ["started"], "it fetches")
    assert devices.attempts([0]) == set()
    devices.withhold(0, "Others use it.")
    fetching.join(30)
    assert bench.hub.events == ["started", "released"]
    devices.allow(0)
    fetching = bench.start(bench.order("a2"))
    wait_until(lambda: bench.hub.events[2:] == ["started"], "it fetches")
    devices.withhold(0, "Drained: what was begun ends.", gently=True)
    bench.weights.arrive.set()
    fetching.join(60)
    assert bench.done().computed == 40
    bench.supervisor.run(bench.order("a3"))
    assert bench.hub.updates[-1].event == "released"


def test_an_attempt_that_is_asked_to_stop_is_released_with_the_reason(bench: Bench):
    running = bench.start(bench.order("a1", settings=slow(0.2)))
    wait_until(lambda: bench.answered(), "some responses are sealed")
    bench.hub.stops["a1"] = "Cancelled on request."
    running.join()
    assert bench.hub.events == ["started", "released"]
    assert bench.hub.updates[-1].sentence == "Cancelled on request."


def test_a_worker_that_stops_gives_back_what_it_runs(bench: Bench):
    running = bench.start(bench.order("a1", settings=slow(0.2)))
    wait_until(lambda: bench.answered(), "some responses are sealed")
    bench.supervisor.stopping.set()
    running.join()
    assert bench.hub.events == ["started", "released"]


def test_progress_counts_a_response_only_when_it_is_in_the_store(bench: Bench):
    running = bench.start(bench.order("a1", settings=slow(0.02)))
    seen = 0
    while running.is_alive():
        for progress in bench.supervisor.progress().values():
            stored = len(bench.answered())
            assert progress.done <= stored
            assert not progress.benchmarks_done or stored == 40
            seen = max(seen, progress.done)
    assert seen > 0


def test_a_killed_engine_is_started_again_within_the_attempt_and_loses_nothing_sealed(bench: Bench):
    running = bench.start(bench.order("a1", settings=slow(0.1)))
    wait_until(lambda: bench.answered(), "some responses are sealed")
    for pid in bench.stage_pids():
        os.kill(pid, signal.SIGKILL)
    phases = set()
    while running.is_alive():
        phases |= {progress.phase for progress in bench.supervisor.progress().values()}
    done = bench.hub.updates[-1].done
    assert isinstance(done, InferDone)
    assert (done.computed, done.reused, len(done.restarts)) == (40, 0, 1)
    assert any("SIGKILL" in phase for phase in phases)
    assert done.tokens_computed >= sum(request.length for request in bench.requests)
    assert len(set(bench.answered())) == 40
    assert len(bench.answered()) <= 40 + 4


def test_whoever_kills_an_engine_on_a_gpu_that_is_lent_gets_the_gpu(bench: Bench):
    devices = bench.give_devices(1, are_lent=True)
    running = bench.start(bench.order("a1", settings=slow(0.1)))
    wait_until(lambda: bench.answered(), "some responses are sealed")
    for pid in bench.stage_pids():
        os.kill(pid, signal.SIGKILL)
    running.join()
    update = bench.hub.updates[-1]
    assert (update.event, update.preempted, devices.usable()) == ("released", True, 0)
    assert "it is left to them" in update.sentence
    assert (devices.take_killed(), devices.take_killed()) == ({0}, set())


def test_an_engine_that_is_killed_on_a_lent_gpu_before_it_kept_anything_costs_a_try(bench: Bench):
    bench.give_devices(1, are_lent=True)
    bench.supervisor.run(bench.order("a1", settings={"crash_after": 0, "batch": 4}))
    update = bench.hub.updates[-1]
    assert (update.event, update.failure) == ("failed", FailureKind.NODE_LOST)


def test_an_engine_that_dies_of_itself_again_and_again_is_a_failure_and_keeps_what_it_sealed(bench: Bench):
    bench.supervisor.run(bench.order("a1", settings={"crash_after": 0, "batch": 4}))
    update = bench.hub.updates[-1]
    assert (update.event, update.failure) == ("failed", FailureKind.ENGINE)
    assert "SIGKILL" in update.sentence
    assert update.sentence.endswith("It was started again 2 times.")
    assert update.progress is not None
    assert len(update.progress.restarts) == 2


def test_an_attempt_that_is_given_back_says_what_it_has_used(bench: Bench):
    running = bench.start(bench.order("a1", settings=slow(0.05)))
    wait_until(lambda: bench.answered(), "some responses are sealed")
    bench.hub.stops["a1"] = "preempted"
    running.join()
    progress = bench.hub.updates[-1].progress
    assert progress is not None
    assert progress.spent.requests == len(bench.answered()) > 0
    assert progress.spent.seconds > 0


def test_a_request_that_kills_the_engine_is_reported_and_the_rest_is_in_the_store(bench: Bench):
    culprit = bench.requests[7].id
    bench.supervisor.run(bench.order("a1", settings={"dies_at": culprit, "batch": 4}))
    done = bench.hub.updates[-1].done
    assert isinstance(done, InferDone)
    assert [(one.requests, one.benchmarks) for one in done.unanswered] == [((culprit,), ("ARC",))]
    assert set(bench.answered()) == {request.id for request in bench.requests} - {culprit}


def test_a_stage_that_takes_too_long_is_stopped_and_says_so(bench: Bench):
    bench.supervisor.run(bench.order("a1", settings=slow(0.5), timeout_seconds=2.0))
    update = bench.hub.updates[-1]
    assert (update.event, update.failure) == ("failed", FailureKind.TIMEOUT)


def test_a_stage_that_hangs_is_ended_and_counts_as_a_failed_engine(bench: Bench):
    bench.supervisor.run(bench.order("a1", settings=slow(6.0), stall_seconds=2.0))
    update = bench.hub.updates[-1]
    assert (update.event, update.failure) == ("failed", FailureKind.ENGINE)
    assert "said nothing for 2 s" in update.sentence


def test_the_end_is_told_again_until_the_hub_hears_it(bench: Bench):
    bench.hub.away.set()
    running = bench.start(bench.order("a1"))
    wait_until(lambda: len(bench.answered()) == 40, "everything is answered")
    assert bench.hub.updates == []
    bench.hub.away.clear()
    running.join()
    assert bench.hub.events[-1] == "completed"


def test_a_result_that_is_too_large_for_a_message_is_told_as_a_failure(bench: Bench):
    bench.hub.too_large = "completed"
    bench.supervisor.run(bench.order("a1"))
    update = bench.hub.updates[-1]
    assert (update.event, update.failure, update.done) == ("failed", FailureKind.HARNESS, None)
    assert update.sentence == "Update has 17.0 MB."


def test_a_failure_that_is_too_large_to_be_told_keeps_no_worker(bench: Bench):
    bench.hub.too_large = "failed"
    bench.supervisor.run(bench.order("a1", settings=slow(6.0), stall_seconds=2.0))
    assert bench.hub.events == ["started"], "the lease ends it"


def test_an_attempt_whose_lease_ended_unheard_stops_its_stage(bench: Bench):
    bench.hub.away.set()
    running = bench.start(bench.order("a1", settings=slow(0.5), lease_seconds=2.0))
    while not bench.answered():
        bench.supervisor.heard(["a1"])
    running.join()
    assert bench.hub.updates == []
    assert 0 < len(bench.answered()) < 40


def test_a_heartbeat_that_was_delivered_keeps_the_attempt(bench: Bench):
    running = bench.start(bench.order("a1", settings=slow(0.1), lease_seconds=2.5))
    while running.is_alive():
        bench.supervisor.heard(["a1"])
        running.join(0.1)
    assert bench.hub.events == ["started", "completed"]


def test_a_model_folder_that_changed_since_submission_is_refused(bench: Bench, tmp_path: Path):
    folder = tmp_path / "changed"
    build_tiny_model(folder)
    model = Model(name="changed", revision=model_folder_digest(folder), folder=str(folder), precision=Precision.FLOAT32)
    (folder / "config.json").write_text("{}")
    bench.supervisor.run(bench.order("a1", model=model))
    update = bench.hub.updates[-1]
    assert (update.event, update.failure) == ("failed", FailureKind.WEIGHTS)
    assert "changed since" in update.sentence


def test_a_sheet_that_is_not_there_is_a_failure_of_the_store(bench: Bench):
    order = bench.order("a1")
    missing = order.work.model_copy(update={"sheets": {"ARC": "sheets/9/ARC/p"}})
    bench.supervisor.run(order.model_copy(update={"work": missing}))
    assert bench.hub.updates[-1].failure is FailureKind.STORAGE


def test_an_order_that_cannot_be_read_is_given_back_with_its_sentence(bench: Bench):
    bench.supervisor.refuse("a1", "Order has message version 2, and this installation reads version 1.")
    assert (bench.hub.updates[0].attempt, bench.hub.updates[0].event) == ("a1", "released")
    assert "version 2" in bench.hub.updates[0].sentence


def test_a_secret_in_the_log_is_hidden_in_what_the_hub_is_told(bench: Bench):
    bench.supervisor.run(bench.order("a1", settings={"passphrase": 1}))
    update = bench.hub.updates[-1]
    assert update.event == "failed"
    assert "passphrase" not in update.model_dump_json()
