from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet import Fleet
from tests.services import processes_with, valkey
from tests.tiny import build_tiny_model


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Iterator[Fleet]:
    """Broker, control and both workers, up; afterwards no process may be left."""
    with valkey(tmp_path / "valkey") as broker:
        made = Fleet(tmp_path / "data", database_url, broker)
        made.start("control", "harness", "engine")
        try:
            yield made
        finally:
            made.stop()
    left = processes_with(str(tmp_path))
    assert left == {}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models that differ in their weights alone: the scripted engine answers both alike."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("one", "two")):
        build_tiny_model(folder / name, seed=seed)
    return {name: folder / name for name in ("one", "two")}
