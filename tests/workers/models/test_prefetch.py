"""Fetching ahead, with a Hub on the loopback address and real downloads; the forecast is the test's."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.broker import UnreadableMessage
from orchestrator.wire import Forecast, Model, Precision
from tests.hub_stub import HubStub, sha_of
from tests.services import wait_until
from tests.workers.downloads import MODEL_BYTES, Host, hub_with_models, model
from workers.models.hub_cache import SPARED_SECONDS
from workers.models.prefetch import LOW_PRIORITY, Prefetcher


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStub]:
    with hub_with_models(monkeypatch, tmp_path) as stub:
        yield stub


def prefetcher(host: Host, *models: Model) -> Prefetcher:
    return Prefetcher(host.weights, look=lambda: Forecast(models=models), pause_seconds=0.01)


def let_pass(host: Host, name: str) -> None:
    """Let a model have been used long ago."""
    then = time.time() - SPARED_SECONDS - 1
    os.utime(host.cache.hub.parent / "marks" / sha_of(name), (then, then))


def test_expected_models_are_fetched_one_after_the_other_and_once(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path)
    ahead = prefetcher(host, model("org/a"), model("org/b"))
    assert [ahead.fetch_next() for _ in range(3)] == [model("org/a"), model("org/b"), None]
    assert host.kept() == {"org/a", "org/b"}
    asked = len(hub.requests)
    host.fetch("org/a")
    assert len(hub.requests) == asked


def test_a_model_is_given_up_for_which_there_is_no_room_beside_what_is_used_or_expected(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path)
    with host.weights.used_by("a1"):
        host.fetch("org/a", attempt="a1")
        ahead = prefetcher(host, model("org/b"), model("org/c"))
        assert [ahead.fetch_next() for _ in range(3)] == [model("org/b"), None, None]
    assert host.kept() == {"org/a", "org/b"}
    assert "org/c/model.safetensors" not in hub.fetched


def test_what_was_not_used_for_a_while_makes_room_for_what_is_expected(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path)
    host.fetch("org/a")
    host.fetch("org/b")
    let_pass(host, "org/a")
    assert prefetcher(host, model("org/c")).fetch_next() == model("org/c")
    assert host.kept() == {"org/b", "org/c"}


def test_an_order_gets_the_room_of_what_was_only_fetched_ahead(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path, limit=MODEL_BYTES + 1000)
    prefetcher(host, model("org/a")).fetch_next()
    host.fetch("org/b")
    assert host.kept() == {"org/b"}


def test_folders_and_models_that_cannot_be_had_are_passed_over(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path)
    folder = Model(name="mine", revision="sha256-1", folder="/models/mine", precision=Precision.FLOAT32)
    hub.gated.add("org/a")
    ahead = prefetcher(host, folder, model("org/a"), model("org/b"))
    assert ahead.fetch_next() == model("org/b")
    asked = len(hub.requests)
    assert ahead.fetch_next() is None
    assert len(hub.requests) == asked


def test_a_forecast_of_another_version_is_passed_over(tmp_path: Path):
    def look() -> Forecast | None:
        raise UnreadableMessage("Forecast has message version 2.")

    assert Prefetcher(Host(tmp_path).weights, look=look, pause_seconds=0.01).fetch_next() is None


def test_the_thread_fetches_at_low_priority_and_stops_when_told(tmp_path: Path, hub: HubStub):
    host = Host(tmp_path)
    seen: list[int] = []

    def look() -> Forecast:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return Forecast(models=(model("org/a"),))

    ahead = Prefetcher(host.weights, look=look, pause_seconds=0.01)
    ahead.start()
    wait_until(lambda: host.weights.has(model("org/a")), "it is fetched")
    ahead.stopping.set()
    ahead.join(30)
    assert not ahead.is_alive()
    assert seen[0] == os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) + LOW_PRIORITY
