"""Writes docs/models.md: what becomes of well-known families, by the checks themselves: `python -m deploy.families`.

Configs and file names are written here by hand after published repositories, cut to what the checks read; nothing is
fetched. What the engine knows is read from the vLLM that is installed, so the table is of that version; a test compares
it.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.wire import EngineFamily
from submissions.case import Case
from submissions.facts import ModelFacts, Weights
from submissions.findings import find_faults
from submissions.fleet import Fleet
from workers.engine.info import engine_info
from workers.engine.knowledge import engine_knowledge

FILE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
SAFETENSORS = ("model.safetensors", "tokenizer.json")
PICKLED = ("pytorch_model.bin", "tokenizer.json")


class Family(NamedTuple):
    """One family as its repositories are."""

    name: str
    example: str
    config: Mapping[str, Any] | None
    files: tuple[str, ...] = SAFETENSORS
    tokenizer: Mapping[str, Any] = {}
    adapter: Mapping[str, Any] | None = None
    weight_type: str = "original"


def causal(model_type: str, architecture: str, **more: Any) -> dict[str, Any]:
    return {"model_type": model_type, "architectures": [architecture], **more}


def coded(model_type: str, architecture: str, module: str) -> dict[str, Any]:
    return causal(model_type, architecture, auto_map={"AutoModelForCausalLM": f"{module}.{architecture}"})


LLAMA = causal("llama", "LlamaForCausalLM")
FAMILIES = (
    Family("Llama", "meta-llama/Llama-3.1-8B", LLAMA),
    Family("Qwen 2.5", "Qwen/Qwen2.5-7B", causal("qwen2", "Qwen2ForCausalLM")),
    Family("Qwen 3", "Qwen/Qwen3-8B", causal("qwen3", "Qwen3ForCausalLM")),
    Family("Qwen 3 MoE", "Qwen/Qwen3-30B-A3B", causal("qwen3_moe", "Qwen3MoeForCausalLM")),
    Family("Mistral", "mistralai/Mistral-7B-v0.3", causal("mistral", "MistralForCausalLM")),
    Family("Mixtral", "mistralai/Mixtral-8x7B-v0.1", causal("mixtral", "MixtralForCausalLM")),
    Family("Falcon", "tiiuae/falcon-7b", causal("falcon", "FalconForCausalLM", auto_map={"AutoConfig": "c.C"})),
    Family("Falcon, first upload", "an old copy of tiiuae/falcon-7b", coded("RefinedWebModel", "RWForCausalLM", "m")),
    Family("Phi 2", "microsoft/phi-2", causal("phi", "PhiForCausalLM")),
    Family("Phi 3", "microsoft/Phi-3-mini-4k-instruct", coded("phi3", "Phi3ForCausalLM", "modeling_phi3")),
    Family("Gemma", "google/gemma-7b", causal("gemma", "GemmaForCausalLM")),
    Family("Gemma 2", "google/gemma-2-9b", causal("gemma2", "Gemma2ForCausalLM")),
    Family("Gemma 3", "google/gemma-3-4b-pt", causal("gemma3", "Gemma3ForConditionalGeneration")),
    Family("DeepSeek V3", "deepseek-ai/DeepSeek-V3", coded("deepseek_v3", "DeepseekV3ForCausalLM", "m")),
    Family("ChatGLM3", "THUDM/chatglm3-6b", coded("chatglm", "ChatGLMModel", "modeling_chatglm"),
           ("model.safetensors", "tokenizer.model"), {"auto_map": {"AutoTokenizer": ["t.T", None]}}),
    Family("GLM 4", "THUDM/GLM-4-9B-0414", causal("glm4", "Glm4ForCausalLM")),
    Family("Baichuan2", "baichuan-inc/Baichuan2-7B-Base", coded("baichuan", "BaichuanForCausalLM", "modeling_baichuan"),
           ("pytorch_model.bin", "tokenizer.model")),
    Family("InternLM 2", "internlm/internlm2-7b", coded("internlm2", "InternLM2ForCausalLM", "modeling_internlm2")),
    Family("RWKV 4", "RWKV/rwkv-4-169m-pile", causal("rwkv", "RwkvForCausalLM")),
    Family("Mamba", "state-spaces/mamba-2.8b-hf", causal("mamba", "MambaForCausalLM")),
    Family("MPT", "mosaicml/mpt-7b", coded("mpt", "MPTForCausalLM", "modeling_mpt"), PICKLED),
    Family("BLOOM", "bigscience/bloom-7b1", causal("bloom", "BloomForCausalLM")),
    Family("GPT-NeoX", "EleutherAI/pythia-6.9b", causal("gpt_neox", "GPTNeoXForCausalLM")),
    Family("GPT-2", "openai-community/gpt2", causal("gpt2", "GPT2LMHeadModel")),
    Family("OPT", "facebook/opt-6.7b", causal("opt", "OPTForCausalLM"), ("pytorch_model.bin", "vocab.json")),
    Family("T5", "google-t5/t5-base", causal("t5", "T5ForConditionalGeneration")),
    Family("BERT", "google-bert/bert-base-uncased", causal("bert", "BertForMaskedLM")),
    Family("LoRA adapter", "any adapter on Llama", None, ("adapter_model.safetensors",),
           adapter={"peft_type": "LORA", "r": 16}, weight_type="adapter"),
    Family("DoRA adapter", "any such adapter on Llama", None, ("adapter_model.safetensors",),
           adapter={"peft_type": "LORA", "r": 16, "use_dora": True}, weight_type="adapter"),
    Family("GPTQ weights", "any, 4 bits", LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
    Family("AWQ weights", "any", LLAMA | {"quantization_config": {"quant_method": "awq", "bits": 4}}),
    Family("FP8 weights", "any", LLAMA | {"quantization_config": {"quant_method": "fp8"}}),
    Family("AQLM weights", "any", LLAMA | {"quantization_config": {"quant_method": "aqlm"}}),
    Family("GGUF only", "any", None, ("model.Q4_K_M.gguf",)),
    Family("`.bin` only", "any", LLAMA, PICKLED),
)  # fmt: skip


def verdict(family: Family, fleet: Fleet) -> str:
    """`accepted`, or every sentence of refusal."""
    base = facts(Family("", "its base model", LLAMA)) if family.weight_type == "adapter" else None
    case = Case(model=facts(family), base=base, weight_type=family.weight_type, fleet=fleet)
    sentences = " ".join(fault.sentence for fault in find_faults(case))
    return sentences.replace(" of It ", " of it ") or "accepted"


def facts(family: Family) -> ModelFacts:
    weights = tuple(name for name in family.files if name.endswith(".safetensors"))
    return ModelFacts(
        name="It" if family.name else family.example,
        revision="0" * 40,
        folder=None,
        files=dict.fromkeys((*family.files, "tokenizer_config.json"), 1),
        config=dict(family.config) if family.config is not None else None,
        tokenizer_config=dict(family.tokenizer),
        adapter_config=dict(family.adapter) if family.adapter is not None else None,
        has_chat_template=False,
        licence=None,
        weights=Weights(files=weights, elements={"BF16": 1} if weights else {}, tensors=len(weights)),
        unreadable={},
    )


def installed() -> Fleet:
    """A fleet of one worker with the vLLM of this environment.

    Raises:
        EngineMissing: there is none.
    """
    info, known = engine_info(EngineFamily.VLLM), engine_knowledge(EngineFamily.VLLM)
    assert known is not None, "the registry of this vLLM cannot be read"
    return Fleet(
        engine=f"vLLM {info.version.partition('+')[0]}",
        architectures=frozenset(known.architectures),
        dropped=known.dropped,
        quantisations=frozenset(known.quantisations),
    )


def write(fleet: Fleet) -> str:
    rows = [f"| {one.name} | {one.example} | {verdict(one, fleet)} |" for one in FAMILIES]
    return "\n".join([
        "<!-- Written by `python -m deploy.families`; a test fails when it is stale. -->",
        "# What becomes of well-known models",
        "",
        f"By the checks of a submission ([Submitting](submitting.md)), with {fleet.engine} on the workers.",
        "*Accepted* means that nothing stands against it but its size, which depends on your workers; the engine has",
        "the last word when it loads the weights. Configs and file names are written after the published repositories,",
        "and repositories change: `evalyard check` says what becomes of yours. No weights were fetched for this table.",
        "",
        "| family | for example | a submission |",
        "| --- | --- | --- |",
        *rows,
        "",
    ])  # fmt: skip


def main() -> int:
    FILE.write_text(write(installed()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
