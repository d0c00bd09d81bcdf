"""An adapter is read whole, and belongs to the base it is evaluated on; else it is refused with what to do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from orchestrator.wire import EngineFamily, FailureKind, Model, Precision
from submissions.adapters import objection
from tests.adapters import build_adapter
from tests.tiny import build_tiny_model
from workers.engine.adapter import Adapter, read_adapter, read_adapter_config
from workers.engine.weights import read_all_shapes
from workers.models.folders import tokenizer_folder, whole_folder
from workers.stage import StageFailure


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    return build_adapter(tmp_path / "adapter", base)


def model(**changes: Any) -> Model:
    fields = {"name": "acme/lora", "revision": "0" * 40, "precision": Precision.FLOAT32}
    return Model(**fields | {"weight_type": "adapter", "base_name": "acme/base"} | changes)


def read(adapter: Path, base: Path, **shapes: tuple[int, ...]) -> Adapter:
    return read_adapter(model(), adapter, read_all_shapes(base) | shapes)


def refused(adapter: Path, base: Path) -> StageFailure:
    with pytest.raises(StageFailure) as caught:
        read(adapter, base)
    assert caught.value.sentence.startswith(("The adapter acme/lora", "Model acme/lora", "adapter_config.json of"))
    return caught.value


def edit_tensors(adapter: Path, **changes: np.ndarray | None) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors") | {
        f"base_model.model.{n}": t for n, t in changes.items()
    }
    save_file(
        {name: tensor for name, tensor in tensors.items() if tensor is not None}, adapter / "adapter_model.safetensors"
    )


def test_an_adapter_says_what_it_changes(adapter: Path, base: Path) -> None:
    found = read(adapter, base)
    assert found.modules == ("down_proj", "gate_proj", "o_proj", "q_proj", "v_proj")
    assert (found.rank, found.widest) == (4, 128)


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        ({"rank_pattern": {"self_attn.q_proj": 4, "nowhere": 9}, "alpha_pattern": {"^model.layers.0": 3.5}}, True),
        ({"r": 16, "rank_pattern": {"self_attn": 9, r"v_proj": 4, "_proj": 9}}, False),
        ({"r": 16, "rank_pattern": {f"{name}_proj": 4 for name in ("q", "v", "o", "gate", "down")}}, True),
        ({"r": 16}, False),
        ({"rank_pattern": {"o_proj": 8}}, False),
        ({"rank_pattern": {"layers.1.mlp.down_proj": 8}}, False),
        ({"rank_pattern": {"^model.layers.0.mlp.down_proj": 2, "down_proj": 4}}, False),
    ],
)
def test_each_update_has_the_rank_that_the_config_scales_it_by(
    config: dict[str, Any], fits: bool, tmp_path: Path, base: Path
) -> None:
    adapter = build_adapter(tmp_path / "adapter", base, **config)
    if fits:
        assert read(adapter, base).rank == 4
        return
    failure = refused(adapter, base)
    assert failure.kind is FailureKind.WEIGHTS
    assert "rank 4 for model.layers" in failure.sentence


@pytest.mark.parametrize("config", [{"r": None}, {"r": True}, {"lora_alpha": float("nan")}, {"lora_alpha": "8"}])
def test_a_config_without_rank_or_scale_is_refused(config: dict[str, Any], tmp_path: Path, base: Path) -> None:
    failure = refused(build_adapter(tmp_path / "adapter", base, **config), base)
    assert (failure.kind, "r, lora_alpha" in failure.sentence) == (FailureKind.CONFIG, True)


@pytest.mark.parametrize(
    "patterns",
    [{r"(\w|[a-z]|.)*(?<=\d)": 4}, {"q_proj$": 4}, {"a" * 300: 4}, {f"m{number}": 4 for number in range(3000)}, ["q"]],
    ids=["endless", "expression", "long", "many", "a list"],
)
@pytest.mark.parametrize("name", ["rank_pattern", "alpha_pattern"])
def test_no_regular_expression_of_an_adapter_reaches_an_engine(
    name: str, patterns: Any, tmp_path: Path, base: Path
) -> None:
    adapter = build_adapter(tmp_path / "adapter", base, **{name: patterns})
    failure = refused(adapter, base)
    assert (failure.kind, "Merge it" in failure.sentence) == (FailureKind.ARCHITECTURE, True)
    with pytest.raises(StageFailure):
        read_adapter_config(model(), adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert name in str(objection(config, EngineFamily.VLLM))


def test_embeddings_are_matched_the_other_way_round(tmp_path: Path, base: Path) -> None:
    assert read(build_adapter(tmp_path / "adapter", base, modules=("embed_tokens",)), base).modules == ("embed_tokens",)


@pytest.mark.parametrize("prefix", ["model.language_model", "language_model.model", "transformer"])
def test_what_stands_before_the_layers_does_not_matter(prefix: str, adapter: Path, base: Path) -> None:
    shapes = {name.replace("model", prefix, 1): shape for name, shape in read_all_shapes(base).items()}
    assert read_adapter(model(), adapter, shapes).rank == 4


@pytest.mark.parametrize(("hidden", "layers"), [(128, 2), (64, 1)])
def test_an_adapter_of_another_model_is_refused(hidden: int, layers: int, adapter: Path, tmp_path: Path) -> None:
    failure = refused(adapter, build_tiny_model(tmp_path / "other", hidden=hidden, layers=layers))
    assert (failure.kind, "acme/base has no such matrix" in failure.sentence) == (FailureKind.WEIGHTS, True)


def test_a_packed_base_is_matched_by_name(adapter: Path, base: Path) -> None:
    for packed in (".qweight", ".weight_packed"):
        shapes = {name.replace(".weight", packed): (1, 1) for name in read_all_shapes(base)}
        assert read_adapter(model(), adapter, shapes).rank == 4
    absmax = {f"{name}{part}": (99, 1) for name in read_all_shapes(base) for part in ("", ".absmax")}
    assert read_adapter(model(), adapter, absmax).rank == 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.layers.0.self_attn.q_proj.lora_magnitude_vector", "DoRA"),
        ("model.layers.0.self_attn.q_proj.lora_B.bias", "has a bias"),
        ("model.embed_tokens.token_adapter.trainable_tokens_delta", "rows of its own"),
        ("model.embed_tokens.base_layer.weight", "embeddings of its own"),
        ("lm_head.weight", "embeddings of its own"),
        ("model.norm.weight", "whole weights beside"),
    ],
)
def test_what_is_more_than_low_rank_updates_is_refused_with_the_way_out(
    name: str, words: str, adapter: Path, base: Path
) -> None:
    edit_tensors(adapter, **{name: np.ones((4, 4), dtype=np.float32)})
    failure = refused(adapter, base)
    assert failure.kind is FailureKind.ARCHITECTURE
    assert words in failure.sentence
    assert "Merge it into its base model" in failure.sentence


@pytest.mark.parametrize("half", [None, np.ones((64, 3), dtype=np.float32), np.ones(64, dtype=np.float32)])
def test_halves_that_do_not_fit_are_refused(half: np.ndarray | None, adapter: Path, base: Path) -> None:
    edit_tensors(adapter, **{"model.layers.0.self_attn.q_proj.lora_B.weight": half})
    assert refused(adapter, base).kind is FailureKind.WEIGHTS


def test_only_lora_is_applied_and_only_from_safetensors(adapter: Path, base: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert "no adapter_model.safetensors" in refused(adapter, base).sentence
    (adapter / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    assert "only LoRA is applied" in refused(adapter, base).sentence
    for text in ("[]", "{", None):
        (adapter / "adapter_config.json").unlink() if text is None else (adapter / "adapter_config.json").write_text(
            text
        )
        assert refused(adapter, base).kind is FailureKind.CONFIG


def test_config_comes_from_the_base_and_the_tokenizer_from_the_adapter_that_has_one(adapter: Path, base: Path) -> None:
    known = model(base_folder=str(base))
    assert (whole_folder(known, adapter), tokenizer_folder(known, adapter)) == (base, base)
    (adapter / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x"}))
    assert tokenizer_folder(known, adapter) == base
    (adapter / "tokenizer.json").write_text("{}")
    assert tokenizer_folder(known, adapter) == adapter
    with pytest.raises(StageFailure, match=r"model\.base_folder"):
        whole_folder(model(), adapter)
    assert whole_folder(Model(name="x", revision="0", precision=Precision.FLOAT32), base) == base
