"""A precision is one that these weights can be loaded as, on the engine that is to load them."""

from typing import Any

import pytest

from orchestrator.wire import EngineFamily, FailureKind, Precision
from submissions.case import Case
from submissions.facts import ModelFacts, Weights
from submissions.findings import find_faults
from submissions.fleet import Fleet, Machine
from submissions.precision import resolve_precision

ON_CPU = Fleet(machines=(Machine("cpu"),))


@pytest.mark.parametrize(
    ("quantization", "stored", "asked", "is_fine"),
    [
        (None, "F32", Precision.FLOAT32, True),
        (None, "BF16", Precision.FLOAT16, False),
        (None, "F16", Precision.BFLOAT16, True),
        (None, "BF16", Precision.FOUR_BIT, True),
        (None, "BF16", Precision.GPTQ, False),
        ({"quant_method": "gptq", "bits": 4}, "F16", Precision.GPTQ, True),
        ({"quant_method": "gptq", "bits": 4}, "F16", Precision.BFLOAT16, False),
        ({"quant_method": "awq", "bits": 4}, "F16", Precision.FLOAT16, True),
        ({"quant_method": "awq", "bits": 4}, "F16", Precision.EIGHT_BIT, False),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "BF16", Precision.FOUR_BIT, True),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "BF16", Precision.EIGHT_BIT, False),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "BF16", Precision.BFLOAT16, False),
    ],
)
def test_a_precision_must_be_what_the_weights_can_be_loaded_as(
    quantization: dict[str, Any] | None, stored: str, asked: Precision, is_fine: bool
) -> None:
    facts = made_up(stored=stored, quantization=quantization)
    found = find_faults(Case(model=facts, precision=asked))
    assert (found == []) is is_fine
    assert all(fault.field == "precision" and fault.kind is FailureKind.PRECISION for fault in found)


@pytest.mark.parametrize(
    ("asked", "quantization", "has_gpu", "engine", "is_fine"),
    [
        (Precision.FOUR_BIT, None, False, EngineFamily.VLLM, False),
        (None, {"quant_method": "bitsandbytes", "load_in_8bit": True}, False, EngineFamily.VLLM, False),
        (None, {"quant_method": "bitsandbytes", "load_in_4bit": True}, False, EngineFamily.VLLM, False),
        (Precision.FOUR_BIT, None, True, EngineFamily.VLLM, True),
        (Precision.FOUR_BIT, None, None, EngineFamily.VLLM, True),
        (Precision.FOUR_BIT, None, False, EngineFamily.TRANSFORMERS, True),
        (Precision.BFLOAT16, None, False, EngineFamily.VLLM, True),
    ],
)
def test_bitsandbytes_is_refused_where_no_worker_has_a_gpu(
    asked: Precision | None,
    quantization: dict[str, Any] | None,
    has_gpu: bool | None,
    engine: EngineFamily,
    is_fine: bool,
) -> None:
    fleet = Fleet() if has_gpu is None else Fleet(machines=(Machine("cuda" if has_gpu else "cpu"),))
    case = Case(model=made_up(quantization=quantization), precision=asked, fleet=fleet, engine=engine)
    found = find_faults(case)
    assert (found == []) is is_fine
    assert all(fault.field == "precision" and "worker with a GPU" in fault.sentence for fault in found)


def test_vllm_is_asked_for_8_bits_only_where_the_weights_are_stored_so() -> None:
    (fault,) = find_faults(Case(model=made_up(), precision=Precision.EIGHT_BIT, fleet=ON_CPU))
    assert "only where the repository holds them" in fault.sentence
    other = Case(model=made_up(), precision=Precision.EIGHT_BIT, engine=EngineFamily.TRANSFORMERS)
    assert find_faults(other) == []


@pytest.mark.parametrize(
    ("config", "stored", "resolved"),
    [
        ({"torch_dtype": "bfloat16"}, "BF16", Precision.BFLOAT16),
        ({"dtype": "torch.float16"}, "F16", Precision.FLOAT16),
        ({"text_config": {"dtype": "float32"}}, "F32", Precision.FLOAT32),
        ({"torch_dtype": "float16"}, "BF16", Precision.BFLOAT16),
        ({"torch_dtype": "float16"}, "F32", Precision.FLOAT16),
        ({"torch_dtype": "bfloat16"}, "F16", Precision.BFLOAT16),
        ({"quantization_config": {"quant_method": "awq"}, "dtype": "float16"}, "BF16", Precision.FLOAT16),
        ({}, "F16", Precision.FLOAT16),
        ({}, "F64", Precision.FLOAT32),
        ({}, "U8", Precision.BFLOAT16),
        ({"quantization_config": {"quant_method": "gptq"}, "dtype": "float16"}, "I32", Precision.GPTQ),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "U8", Precision.FOUR_BIT),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "I8", Precision.EIGHT_BIT),
        ({"quantization_config": {"quant_method": "fp8"}, "dtype": "bfloat16"}, "F8_E4M3", Precision.BFLOAT16),
        ({"text_config": {"quantization_config": {"quant_method": "gptq"}}}, "I32", Precision.GPTQ),
    ],
)
def test_auto_is_what_the_weights_were_saved_in(config: dict[str, Any], stored: str, resolved: Precision) -> None:
    assert resolve_precision(Case(model=made_up(stored=stored, config=config))) is resolved


@pytest.mark.parametrize(
    ("stored", "section", "parameters"),
    [
        ("I32", {"quant_method": "gptq", "bits": 4}, 8000),
        ("I32", {"quant_method": "gptq", "bits": 8}, 4000),
        ("I32", {"quant_method": "awq", "w_bit": 4}, 8000),
        ("I32", {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4}}}}, 8000),
        ("I8", {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 8}}}}, 1000),
        ("U8", {"quant_method": "bitsandbytes", "load_in_4bit": True}, 2000),
        ("U8", {"quant_method": "mxfp4"}, 2000),
        ("U8", {"quant_method": "modelopt", "quant_algo": "NVFP4"}, 2000),
        ("F8_E4M3", {"quant_method": "fp8"}, 1000),
        ("I32", {"quant_method": "gptq", "bits": "four"}, 1000),
        ("I32", {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": [4]}, "h": 4}}, 4000),
    ],
)
def test_quantised_weights_are_counted_unpacked(stored: str, section: dict[str, Any], parameters: int) -> None:
    assert made_up(stored=stored, quantization=section, elements=1000).parameters == parameters


@pytest.mark.parametrize("where", ["quantization_config", "compression_config", "text_config"])
def test_how_weights_are_quantised_is_found_wherever_engines_find_it(where: str) -> None:
    section: dict[str, Any] = {"quant_method": "fp8"}
    facts = made_up(stored="F8_E4M3", config={where: {"quantization_config": section} if "text" in where else section})
    assert find_faults(Case(model=facts)) == []
    only_gptq = Fleet(machines=(Machine("cuda"),), engine="vLLM 1", quantisations=frozenset({"gptq"}))
    (fault,) = find_faults(Case(model=facts, fleet=only_gptq))
    assert "quantised with fp8, which vLLM 1 does not load" in fault.sentence


def made_up(
    *,
    stored: str = "BF16",
    quantization: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    elements: int = 10,
) -> ModelFacts:
    whole = {"model_type": "llama"} | (config or {})
    if quantization is not None:
        whole["quantization_config"] = quantization
    return ModelFacts(
        name="acme/model",
        revision="0" * 40,
        folder=None,
        files={"config.json": 1, "tokenizer.json": 1, "model.safetensors": 1},
        config=whole,
        tokenizer_config={},
        adapter_config=None,
        has_chat_template=False,
        licence=None,
        weights=Weights(files=("model.safetensors",), elements={stored: elements}, tensors=1),
        unreadable={},
    )
