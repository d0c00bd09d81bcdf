"""Adapters: on their base, of a kind that engines apply, and with one reason when refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire import EngineFamily, FailureKind
from submissions.case import Case
from submissions.findings import find_faults
from tests.submissions.models import edit, facts_of, faults, make_adapter


def test_an_adapter_needs_its_base_and_is_submitted_as_one(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base_model_name_or_path="acme/base")
    base = facts_of(model)
    as_adapter = {"weight_type": "adapter", "engine": EngineFamily.SCRIPTED}
    assert faults(adapter, base=base, **as_adapter) == []
    assert faults(adapter, **as_adapter) == [("base_model", None)]
    assert faults(model, base=base, **as_adapter) == [("weight_type", FailureKind.CONFIG)]
    (as_original,) = find_faults(Case(model=facts_of(adapter), engine=EngineFamily.SCRIPTED))
    assert "Submit it with weight type 'adapter' and base model acme/base" in as_original.sentence


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "only LoRA is applied"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1]}, "rows of the embeddings"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"r": 1024}, "rank 1024"),
    ],
)
@pytest.mark.parametrize("weight_type", ["adapter", "original"])
def test_an_adapter_that_no_engine_applies_is_refused_with_one_reason(
    config: dict[str, Any], words: str, weight_type: str, model: Path, tmp_path: Path
) -> None:
    adapter = facts_of(make_adapter(tmp_path / "adapter", **config))
    for base in (None, facts_of(model)):
        (fault,) = find_faults(Case(model=adapter, base=base, weight_type=weight_type))
        assert (fault.field, fault.kind) == ("weight_type", FailureKind.ARCHITECTURE)
        assert words in fault.sentence
        assert "Merge it into its base model" in fault.sentence


@pytest.mark.parametrize(
    "config",
    [{"use_rslora": True}, {"init_lora_weights": "gaussian"}, {"modules_to_save": None}, {"rank_pattern": {"x": 8}}],
)
def test_a_plain_lora_adapter_is_accepted_by_every_engine(config: dict[str, Any], model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", **config)
    for engine in EngineFamily:
        assert faults(adapter, base=facts_of(model), weight_type="adapter", engine=engine) == []


def test_an_adapter_s_own_tokenizer_is_the_one_that_counts(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    edit(model / "tokenizer_config.json", chat_template="{{ messages }}")
    asked = {"weight_type": "adapter", "chat_template": True}
    assert faults(adapter, base=facts_of(model), **asked) == []
    shutil.copy(model / "tokenizer.json", adapter)
    (adapter / "tokenizer_config.json").write_text("{}")
    assert faults(adapter, base=facts_of(model), **asked) == [("chat_template", FailureKind.CHAT_TEMPLATE)]
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    assert faults(adapter, base=facts_of(model), **asked) == []


def test_an_adapter_comes_as_safetensors(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert faults(adapter, base=facts_of(model), weight_type="adapter") == [("model", FailureKind.WEIGHTS)]


def test_a_whole_model_submitted_as_an_adapter_is_told_so_and_nothing_else(model: Path) -> None:
    (fault,) = find_faults(Case(model=facts_of(model), weight_type="adapter"))
    assert (fault.field, fault.kind) == ("weight_type", FailureKind.CONFIG)
    assert "Submit it with weight type 'original'" in fault.sentence


def test_faults_of_the_base_belong_to_its_field(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    bare = Path(shutil.copytree(model, tmp_path / "bare"))
    (bare / "model.safetensors").unlink()
    found = faults(adapter, base=facts_of(bare), weight_type="adapter", engine=EngineFamily.SCRIPTED)
    assert found == [("base_model", FailureKind.WEIGHTS)]
