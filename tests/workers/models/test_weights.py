import json
import os
from pathlib import Path

import pytest

from orchestrator.artifacts import model_folder_digest
from orchestrator.wire import FailureKind, Model, Precision
from tests.tiny import build_tiny_model
from workers.models.weights import DigestCache, ModelUnavailable, Weights, check_complete


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_tiny_model(tmp_path / "org" / "tiny")
    return tmp_path / "org" / "tiny"


def weights(tmp_path: Path, *, mirror: Path | None = None) -> Weights:
    return Weights(mirror=mirror, token=None, digests=tmp_path / "digests.json")


def local(here: Path, **changes) -> Model:
    fields = {"name": "org/tiny", "revision": model_folder_digest(here), "folder": str(here)} | changes
    return Model(precision=Precision.FLOAT32, **fields)


def test_an_unchanged_folder_is_used_where_it_lies(tmp_path: Path, folder: Path):
    assert weights(tmp_path).resolve(local(folder), weights=True).folder == folder


def test_a_folder_of_another_host_is_found_in_this_hosts_mirror(tmp_path: Path, folder: Path):
    model = local(folder, folder="/not/on/this/host")
    assert weights(tmp_path, mirror=tmp_path).resolve(model, weights=True).folder == folder


def test_a_folder_that_is_nowhere_is_said_with_the_places_that_were_looked_at(tmp_path: Path, folder: Path):
    with pytest.raises(ModelUnavailable, match="/not/on/this/host") as error:
        weights(tmp_path).resolve(local(folder, folder="/not/on/this/host"), weights=True)
    assert error.value.kind is FailureKind.WEIGHTS


@pytest.mark.parametrize("name", ["../tiny", "org/../tiny", "a/b/c", ".", "/etc"])
def test_a_name_never_leads_out_of_the_mirror(tmp_path: Path, folder: Path, name: str):
    model = local(folder, folder=None, name=name)
    with pytest.raises(ModelUnavailable):
        weights(tmp_path, mirror=tmp_path / "org").resolve(model, weights=False)


def test_a_changed_file_is_noticed_although_digests_are_remembered(tmp_path: Path, folder: Path):
    model = local(folder)
    keeper = weights(tmp_path)
    keeper.resolve(model, weights=True)
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelUnavailable, match="changed since") as error:
        keeper.resolve(model, weights=True)
    assert error.value.kind is FailureKind.WEIGHTS


def test_a_large_file_that_stays_the_same_is_read_once(tmp_path: Path):
    file = tmp_path / "large"
    file.write_bytes(b"x" * (2 << 20))
    os.utime(file, (1_000_000_000, 1_000_000_000))
    cache = DigestCache(tmp_path / "digests.json")
    digest = cache.sha256(file)
    # Same size and time, other bytes: only a cache answers with the old digest.
    file.write_bytes(b"y" * (2 << 20))
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert cache.sha256(file) == digest


def test_a_damaged_memory_of_digests_is_forgotten(tmp_path: Path, folder: Path):
    (tmp_path / "digests.json").write_text("[1,")
    assert weights(tmp_path).resolve(local(folder), weights=False).folder == folder


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "no safetensors"),
        ({"pytorch_model.bin": b""}, "no safetensors"),
        ({"a.safetensors": b"", "model.safetensors.index.json": b"{"}, "not a readable index"),
        ({"a.safetensors": b"", "model.safetensors.index.json": b'{"weight_map": {"x": "b.safetensors"}}'}, "lacks b"),
        ({"a.safetensors": b"", "model.safetensors.index.json": b'{"weight_map": {"x": "../a.safetensors"}}'}, "lacks"),
    ],
)
def test_weights_that_are_not_all_there_are_refused(tmp_path: Path, files: dict[str, bytes], sentence: str):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelUnavailable, match=sentence) as error:
        check_complete("org/m", tmp_path)
    assert error.value.kind is FailureKind.WEIGHTS


def test_an_adapter_comes_with_the_folder_of_its_base(tmp_path: Path, folder: Path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/tiny"}))
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    model = local(
        adapter,
        weight_type="adapter",
        base_name="org/tiny",
        base_revision=model_folder_digest(folder),
        base_folder="/elsewhere",
    )
    found = weights(tmp_path, mirror=tmp_path).resolve(model, weights=True)
    assert (found.folder, found.model.base_folder) == (adapter, str(folder))


def test_a_hub_that_cannot_be_reached_is_a_failure_of_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = Model(name="org/not-cached", revision="0" * 40, precision=Precision.FLOAT32)
    with pytest.raises(ModelUnavailable, match="EVALYARD_MODELS") as error:
        weights(tmp_path).resolve(model, weights=False)
    assert error.value.kind is FailureKind.DOWNLOAD


def test_an_index_that_no_model_has_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with (tmp_path / "x.safetensors.index.json").open("wb") as index:
        index.truncate(65 * 10**6)
    with pytest.raises(ModelUnavailable, match="takes 65 MB, which no index does") as error:
        check_complete("org/m", tmp_path)
    assert error.value.kind is FailureKind.WEIGHTS
