"""The identity names the type that an engine computes in, wherever a config keeps it."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire import EngineFamily, Model, Precision
from tests.workers.engine.factories import infer_work
from workers.engine.vllm_settings import precision_arguments
from workers.harness.model_files import ModelFiles, identity

GEMMA: dict[str, Any] = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}
LLAMA: dict[str, Any] = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        (GEMMA | {"text_config": {"model_type": "gemma3_text", "dtype": "bfloat16"}}, "bfloat16"),
        (GEMMA | {"text_config": {"model_type": "gemma3_text", "torch_dtype": "bfloat16"}}, "bfloat16"),
        (GEMMA | {"dtype": "bfloat16"}, "bfloat16"),
        (LLAMA | {"torch_dtype": "bfloat16"}, "bfloat16"),
        (LLAMA | {"dtype": "float32"}, "float16"),
        (LLAMA, "float16"),
    ],
)
def test_quantised_weights_are_identified_by_the_type_that_the_engine_computes_in(
    config: dict[str, Any], dtype: str, tmp_path: Path
) -> None:
    from transformers import AutoConfig

    config = config | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    files = ModelFiles(tmp_path, tmp_path, "vllm", AutoConfig.from_pretrained(tmp_path), None, 2048, None)
    for precision, expected in ((Precision.GPTQ, dtype), (Precision.FOUR_BIT, dtype), (Precision.FLOAT32, "float32")):
        model = Model(name="acme/m", revision="0", precision=precision)
        named = identity(model, files)
        assert named["dtype"] == named["kv_cache_dtype"] == expected
        work = infer_work({}, engine=EngineFamily.VLLM, model=model, identity=named)
        assert precision_arguments(work, config)["dtype"] == expected
