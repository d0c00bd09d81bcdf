import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from orchestrator.wire import FailureKind
from tests.tiny import build_tiny_model
from workers.engine.weights import check_weights, vocabulary_size
from workers.stage import StageFailure


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "tiny", layers=2)


def refused(folder: Path) -> StageFailure:
    with pytest.raises(StageFailure) as caught:
        check_weights(folder)
    return caught.value


def shard(model: Path) -> None:
    """Split the weights into two files with an index."""
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    half = len(tensors) // 2
    parts = {"one.safetensors": [*tensors][:half], "two.safetensors": [*tensors][half:]}
    for file, names in parts.items():
        save_file({name: tensors[name] for name in names}, model / file)
    weight_map = {name: file for file, names in parts.items() for name in names}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_whole_weights_are_accepted_and_measured(model: Path) -> None:
    assert check_weights(model) == (model / "model.safetensors").stat().st_size
    shard(model)
    assert check_weights(model) == sum(file.stat().st_size for file in model.glob("*.safetensors"))


def test_a_folder_with_other_formats_only_is_refused(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    failure = refused(model)
    assert (failure.kind, "safe_serialization" in failure.sentence) == (FailureKind.WEIGHTS, True)


def test_a_missing_shard_is_named(model: Path) -> None:
    shard(model)
    (model / "two.safetensors").unlink()
    assert "two.safetensors is named in the index but missing" in refused(model).sentence


@pytest.mark.parametrize("cut", [4, 100, -1])
def test_a_file_cut_short_is_refused(model: Path, cut: int) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    assert "model.safetensors is damaged" in refused(model).sentence


def test_a_file_that_is_no_safetensors_is_refused(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    assert refused(model).kind is FailureKind.WEIGHTS


@pytest.mark.parametrize("lost", ["mlp.up_proj", "mlp.gate_proj", "self_attn.v_proj", "self_attn.q_proj"])
def test_a_lost_part_of_a_merged_parameter_is_named(model: Path, lost: str) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors[f"model.layers.1.{lost}.weight"]
    save_file(tensors, model / "model.safetensors")
    assert f"lack the tensor model.layers.1.{lost}.weight" in refused(model).sentence


def test_an_index_that_promises_a_tensor_no_file_holds_is_refused(model: Path) -> None:
    shard(model)
    index = model / "model.safetensors.index.json"
    promised = json.loads(index.read_text())
    promised["weight_map"]["model.layers.9.mlp.down_proj.weight"] = "one.safetensors"
    index.write_text(json.dumps(promised))
    assert "model.layers.9.mlp.down_proj.weight" in refused(model).sentence


def test_an_index_cannot_point_outside_the_folder(model: Path, tmp_path: Path) -> None:
    save_file({"x": np.zeros(1, dtype=np.float32)}, tmp_path / "secret.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../secret.safetensors"}}))
    assert "points outside its folder" in refused(model).sentence


def test_the_vocabulary_of_a_multimodal_config_is_its_text_model_s(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 7, "text_config": {"vocab_size": 300}}))
    assert vocabulary_size(tmp_path) == 300


def test_a_config_that_is_missing_or_broken_has_its_class(tmp_path: Path) -> None:
    assert refused(tmp_path).kind is FailureKind.WEIGHTS
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(StageFailure) as caught:
        vocabulary_size(tmp_path)
    assert caught.value.kind is FailureKind.CONFIG


NESTED = "[" * 100_000


@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_json_that_is_nested_without_end_is_the_models_fault(model: Path, file: str) -> None:
    (model / file).write_text(NESTED)
    assert refused(model).kind in (FailureKind.CONFIG, FailureKind.WEIGHTS)


def test_a_header_that_is_nested_without_end_is_the_models_fault(model: Path) -> None:
    (model / "model.safetensors").write_bytes(len(NESTED).to_bytes(8, "little") + NESTED.encode())
    assert "is damaged" in refused(model).sentence
