"""What the installed engine knows is read from its registry, without importing it."""

import subprocess
import sys

import pytest

from orchestrator.wire import EngineFamily
from workers.engine.info import EngineMissing, engine_info
from workers.engine.knowledge import engine_knowledge

SCRIPT = """
import sys
from orchestrator.wire import EngineFamily
from workers.engine.knowledge import engine_knowledge
engine_knowledge(EngineFamily.VLLM)
print([name for name in ("torch", "vllm", "transformers") if name in sys.modules])
"""


@pytest.fixture(autouse=True)
def vllm() -> None:
    try:
        engine_info(EngineFamily.VLLM)
    except EngineMissing as error:
        pytest.skip(f"NOT READ FROM AN ENGINE: {error}")


def test_architectures_that_generate_are_known_and_others_are_not() -> None:
    known = engine_knowledge(EngineFamily.VLLM)
    assert known is not None
    assert {"LlamaForCausalLM", "MixtralForCausalLM", "GPTNeoXForCausalLM"} <= set(known.architectures)
    assert not {"BertModel", "LlamaModel", "RwkvForCausalLM", "MptForCausalLM"} & set(known.architectures)
    assert "MPTForCausalLM" in known.dropped
    assert {"gptq", "awq", "fp8", "bitsandbytes"} <= set(known.quantisations)
    assert "aqlm" not in known.quantisations
    assert engine_knowledge(EngineFamily.SCRIPTED) is None


def test_reading_it_imports_no_engine() -> None:
    told = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"
