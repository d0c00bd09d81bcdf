"""Fixtures of the workers' tests: a tiny model in a folder, and a supervisor with its store, hub and sheet."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.artifacts import ArtifactStore, model_folder_digest
from orchestrator.wire import EngineFamily, Model, Precision
from tests.services import wait_until
from tests.tiny import build_tiny_model
from tests.workers.bench import Bench, ListeningHub
from workers import sheets
from workers.models.weights import Weights
from workers.settings import WorkerSettings
from workers.supervisor import Supervisor


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_model(folder)
    return Model(name="tiny", revision=model_folder_digest(folder), folder=str(folder), precision=Precision.FLOAT32)


@pytest.fixture
def bench(tmp_path: Path, tiny: Model) -> Iterator[Bench]:
    store = ArtifactStore((tmp_path / "store").as_uri())
    settings = WorkerSettings(
        worker_kind="engine",
        worker_name="test",
        broker_url="redis://:passphrase@unused/0",
        artifacts_url=store.url,
        engine=EngineFamily.SCRIPTED,
        worker_scratch=tmp_path / "scratch",
        worker_grace_seconds=10,
    )
    hub = ListeningHub()
    weights = Weights(mirror=None, token=None, digests=tmp_path / "digests.json")
    supervisor = Supervisor(settings, hub=hub, store=store, weights=weights)
    requests = [
        sheets.Loglikelihood(sheets.loglikelihood_id([1, number], [5, 6]), [1, number], [5, 6]) for number in range(40)
    ]
    made = Bench(supervisor, hub, store, tmp_path / "scratch", tiny, requests, settings, weights)
    made.add_sheet("ARC", requests)
    yield made
    made.supervisor.stopping.set()
    wait_until(lambda: not made.supervisor.progress(), "every attempt has ended")
    if made.supervisor.devices is not None:
        made.supervisor.devices.close()
    assert made.stage_pids() == {}
