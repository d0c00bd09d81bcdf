"""What lm-eval's back ends are told of an adapter, so that both sides ask the same model."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from orchestrator.wire import Model, Precision
from tests.adapters import build_adapter
from tests.tiny import build_tiny_model
from workers.reference.adapters import adapter_arguments
from workers.stage import StageFailure


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "base")


def model(adapter: Path, base: Path) -> Model:
    return Model(
        name="acme/lora",
        revision="sha256-1",
        folder=str(adapter),
        precision=Precision.FLOAT32,
        weight_type="adapter",
        base_name="acme/base",
        base_revision="sha256-0",
        base_folder=str(base),
    )


def test_lm_eval_s_vllm_gets_the_adapter_its_rank_and_its_modules_and_the_base_s_tokenizer(
    base: Path, tmp_path: Path
) -> None:
    adapter = build_adapter(tmp_path / "adapter", base, rank=20, modules=("q_proj", "v_proj"))
    given = adapter_arguments(model(adapter, base), adapter, "vllm", on_cpu=False)
    assert given == {
        "lora_local_path": str(adapter),
        "max_loras": 1,
        "max_lora_rank": 32,
        "lora_target_modules": ["q_proj", "v_proj"],
    }


def test_a_tokenizer_that_came_with_the_adapter_is_used(base: Path, tmp_path: Path) -> None:
    adapter = build_adapter(tmp_path / "adapter", base)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (adapter / name).write_bytes((base / name).read_bytes())
    given = adapter_arguments(model(adapter, base), adapter, "vllm", on_cpu=True)
    assert given["tokenizer"] == str(adapter)


def test_lm_eval_s_hf_needs_peft_and_says_so(base: Path, tmp_path: Path) -> None:
    adapter = build_adapter(tmp_path / "adapter", base)
    if find_spec("peft"):
        assert adapter_arguments(model(adapter, base), adapter, "hf", on_cpu=True) == {"peft": str(adapter)}
    else:
        with pytest.raises(StageFailure, match="Install peft, or compare with --against lm-eval-vllm"):
            adapter_arguments(model(adapter, base), adapter, "hf", on_cpu=True)


def test_an_adapter_of_another_base_is_refused_before_lm_eval_would_ignore_it(base: Path, tmp_path: Path) -> None:
    adapter = build_adapter(tmp_path / "adapter", base)
    other = build_tiny_model(tmp_path / "other", hidden=32)
    with pytest.raises(StageFailure, match="acme/lora"):
        adapter_arguments(model(adapter, other), adapter, "vllm", on_cpu=True)
