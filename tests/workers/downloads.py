"""A worker's downloads for tests: a Hub on the loopback address with four models, and a host with a small budget."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest

from orchestrator.wire import Model, Precision
from tests.hub_stub import HubStub, running_hub, sha_of, use_instead_of_the_hub
from workers.models.hub_cache import HubCache
from workers.models.weights import Weights

MODEL_BYTES = 1_000_000
"""Each model's weights; its other files are a few bytes."""

ROOM_FOR_TWO = 2 * MODEL_BYTES + 1000


@contextmanager
def hub_with_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStub]:
    with running_hub() as stub:
        use_instead_of_the_hub(stub, monkeypatch, tmp_path / "users-own")
        for number, name in enumerate(("org/a", "org/b", "org/c", "org/d")):
            folder = tmp_path / "repositories" / name
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps({"number": number}))
            (folder / "model.safetensors").write_bytes(bytes([number]) * MODEL_BYTES)
            (folder / "pytorch_model.bin").write_bytes(b"never fetched")
            stub.add(name, folder)
        yield stub
        stub.open.set()


class Host:
    """The downloads of a host, as one of its workers sees them."""

    def __init__(self, tmp_path: Path, *, limit: int | None = ROOM_FOR_TWO) -> None:
        self.cache = HubCache(tmp_path / "weights", limit=limit)
        self.weights = Weights(mirror=None, token=None, digests=tmp_path / "digests.json", cache=self.cache)

    def fetch(self, name: str, *, weights: bool = True, attempt: str | None = None) -> Path:
        return self.weights.resolve(model(name), weights=weights, attempt=attempt).folder

    def kept(self) -> set[str]:
        """Names of the models whose weights lie in the folder."""
        found = huggingface_hub.scan_cache_dir(self.cache.hub)
        return {
            repo.repo_id
            for repo in found.repos
            for revision in repo.revisions
            if any(file.file_name == "model.safetensors" for file in revision.files)
        }


def model(name: str) -> Model:
    return Model(name=name, revision=sha_of(name), precision=Precision.FLOAT32)
