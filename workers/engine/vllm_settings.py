"""How a vLLM engine is set up for a model, the work at hand and the device; what the operator gives overrides it.

Pure: decides from the config and the sheet's needs, starts nothing and imports no engine.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.footprint import GIB, USUAL_SHARE, cache_bytes_per_token, head_size, quantization, text_config
from orchestrator.wire import EngineInfo, FailureKind, InferWork, Model, Precision
from workers.engine.adapter import MERGE, Adapter
from workers.engine.engine import Need
from workers.engine.sizes import tensor_parallel_size
from workers.stage import StageFailure

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What vLLM's CPU attention has kernels for."""

CPU_BLOCK = 32
"""Tokens of a cache block on a CPU: its kernels want multiples of 32, and small blocks are reused more often."""

CPU_SEQUENCES, CPU_TOKENS = 64, 4096
"""Requests and tokens computed together on a CPU: more only costs memory there."""

BITSANDBYTES = {"quantization": "bitsandbytes", "load_format": "bitsandbytes"}
"""It has a loader of its own, which reads safetensors where there are any; that there are is checked before."""

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks for which vLLM keeps room."""

CPU_LORA_BYTES = 1 << 30
"""On a CPU vLLM copies an adapter's matrix for each token of a step: the memory for that."""

GPU_SEQUENCES, GPU_TOKENS = 256, 8192
"""Requests and tokens computed together on a GPU. vLLM itself takes 1024 and 16384 from 70 GiB on, and does not count
the logits of scored prompts among what it must leave room for: one step's are gigabytes."""

SHARE_STEP = 0.05

MIB = 1 << 20

CONTEXT_DEPENDENT = ("longrope", "su", "dynamic")
"""Rotary scalings that change with the engine's context length, which then must be the model's own."""

ALLOWED = (
    "async_scheduling", "block_size", "cpu_offload_gb", "cudagraph_capture_sizes", "disable_cascade_attn",
    "disable_custom_all_reduce", "disable_log_stats", "enable_chunked_prefill", "enable_expert_parallel",
    "enable_flashinfer_autotune", "enforce_eager", "gpu_memory_utilization", "kv_cache_memory_bytes",
    "linear_backend", "long_prefill_token_threshold", "max_cudagraph_capture_size", "max_model_len",
    "max_num_batched_tokens", "max_num_seqs", "max_parallel_loading_workers", "moe_backend", "num_gpu_blocks_override",
    "numa_bind", "numa_bind_cpus", "numa_bind_nodes", "safetensors_load_strategy", "tensor_parallel_size",
)  # fmt: skip
"""What a setting may be: how much at once, in which memory, on how many devices, by which kernels. All else decides the
answers, and belongs to the model's identity, or names code or a secret, and belongs nowhere."""


@dataclass(frozen=True)
class VllmSettings:
    arguments: dict[str, Any]
    """For `vllm.LLM`."""
    environment: dict[str, str]
    """Set before vLLM is imported."""


def derive(
    work: InferWork,
    need: Need,
    *,
    config: dict[str, Any],
    info: EngineInfo,
    weight_bytes: int,
    adapter: Adapter | None = None,
) -> VllmSettings:
    """Arguments and environment for this work; `config` and `weight_bytes` are the base model's for an adapter.

    Raises:
        StageFailure: the model cannot run on this device at this precision, or a setting is not allowed.
    """
    if unknown := unknown_settings(work.settings):
        raise StageFailure(FailureKind.ENGINE, unknown)
    if "max_model_len" in work.settings and _context_dependent(config):
        raise StageFailure(
            FailureKind.ENGINE, "With this model 'max_model_len' decides what is answered. Leave it out."
        )
    on_cpu = info.device_type == "cpu"
    precision = precision_arguments(work, config)
    if on_cpu:
        _refuse_odd_heads(work.model, config)
        if precision.get("quantization") == "bitsandbytes":
            raise StageFailure(
                FailureKind.PRECISION,
                "8bit and 4bit need bitsandbytes, which needs a GPU, and this worker computes on a CPU. Choose "
                "bfloat16, float16 or float32.",
            )
    arguments: dict[str, Any] = {
        "load_format": "safetensors",
        **precision,
        "max_model_len": context_length(work, need, config),
        "enable_prefix_caching": True,
        "seed": 1234,
        "disable_log_stats": True,
    }
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # A model that computes NaN must fail, not generate the first token of its vocabulary.
        "VLLM_RAISE_ON_LOGIT_NANS": "1",
    }
    if not need.generates and adapter is None and text_config(config) is config:
        # Requests are token ids, and only texts are written by it. With a large vocabulary it is half of the start.
        # What else a model has beside text would be set up with it.
        arguments["skip_tokenizer_init"] = True
    if "tensor_parallel_size" not in work.settings:
        arguments["tensor_parallel_size"] = tensor_parallel_size(
            work.model,
            config,
            info=info,
            weight_bytes=weight_bytes,
            context=arguments["max_model_len"],
            share=float(work.settings.get("gpu_memory_utilization", USUAL_SHARE)),
        )
    shared = int((arguments | work.settings)["tensor_parallel_size"])
    if shared > info.device_count and not on_cpu:
        raise StageFailure(
            FailureKind.ENGINE,
            f"The setting tensor_parallel_size asks for {shared} GPUs, and the engine sees {info.device_count}. Leave "
            "it out: the hub orders as many GPUs as the model needs.",
            lasting=True,
        )
    if shared == 1:
        # One device: the engine lives in this process, which is a process of its own anyway.
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    else:
        # A forked engine would inherit the locks of this program's threads, held by nobody, and wait for them for ever.
        environment["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    if on_cpu:
        arguments |= {
            "enforce_eager": True,
            "block_size": CPU_BLOCK,
            "kv_cache_memory_bytes": _cpu_cache_bytes(work, arguments["max_model_len"], config=config, info=info),
        }
        # Without it the first scored row waits up to half a minute for a compiler.
        environment["TORCHDYNAMO_DISABLE"] = "1"
    if adapter is not None:
        arguments |= lora_arguments(work.model, adapter, on_cpu=on_cpu)
    whole = with_step(arguments | work.settings, on_cpu=on_cpu)
    return VllmSettings(smaller(whole, work.footprint, on_cpu=on_cpu), environment)


def unknown_settings(settings: Iterable[str]) -> str:
    """A sentence on what is among these and may not be set; empty if all may."""
    unknown = sorted(set(settings).difference(ALLOWED))
    if not unknown:
        return ""
    return f"{', '.join(unknown)} cannot be set: it would change the answers. Settings are: {', '.join(ALLOWED)}."


def lora_arguments(model: Model, adapter: Adapter, *, on_cpu: bool) -> dict[str, Any]:
    """How vLLM is told to keep room for one adapter, in the modules that it changes and no others.

    Left to itself vLLM would wrap the output layer, too, and fail where it scores several rows of a prompt.
    """
    if "lm_head" in adapter.modules:
        raise StageFailure(
            FailureKind.ARCHITECTURE,
            f"The adapter {model.name} changes the output layer (lm_head), which vLLM does not apply where it scores a "
            f"prompt. {MERGE}",
        )
    rank = next((rank for rank in LORA_RANKS if rank >= adapter.rank), None)
    if rank is None:
        raise StageFailure(
            FailureKind.ARCHITECTURE,
            f"The adapter {model.name} has rank {adapter.rank}, and vLLM applies ranks up to {LORA_RANKS[-1]}. {MERGE}",
        )
    arguments: dict[str, Any] = {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": rank,
        "lora_target_modules": list(adapter.modules),
    }
    if on_cpu:
        tokens = CPU_LORA_BYTES // (4 * rank * adapter.widest)
        arguments["max_num_batched_tokens"] = min(CPU_TOKENS, max(CPU_SEQUENCES, tokens))
    return arguments


def with_step(arguments: dict[str, Any], *, on_cpu: bool) -> dict[str, Any]:
    """The arguments with how much is computed at a time, where that is not set: what a smaller footprint halves."""
    usual_sequences, usual_tokens = (CPU_SEQUENCES, CPU_TOKENS) if on_cpu else (GPU_SEQUENCES, GPU_TOKENS)
    tokens = arguments.get("max_num_batched_tokens")
    sequences = arguments.get("max_num_seqs") or min(usual_sequences, tokens or usual_sequences)
    if tokens is None:
        length = arguments.get("max_model_len")
        tokens = max(sequences, min(usual_tokens, sequences * length) if length else usual_tokens)
    return arguments | {"max_num_seqs": sequences, "max_num_batched_tokens": tokens}


def smaller(arguments: dict[str, Any], footprint: int, *, on_cpu: bool) -> dict[str, Any]:
    """The arguments of an engine that ran out of memory `footprint` times: half as much at a time for each of them.

    What is halved is computed at a time, which bounds activations and logits. A GPU engine also leaves more of the
    memory to others, a little only: the share that it takes is where its cache lives. On a CPU the cache shrinks.
    """
    if footprint == 0:
        return arguments
    sequences = max(1, int(arguments["max_num_seqs"]) >> footprint)
    tokens = max(64, sequences, int(arguments["max_num_batched_tokens"]) >> footprint)
    less = {"max_num_seqs": sequences, "max_num_batched_tokens": tokens}
    if not on_cpu:
        share = float(arguments.get("gpu_memory_utilization", USUAL_SHARE)) - SHARE_STEP * footprint
        return arguments | less | {"gpu_memory_utilization": max(0.1, round(share, 3))}
    if cache := arguments.get("kv_cache_memory_bytes"):
        less["kv_cache_memory_bytes"] = max(64 * MIB, int(cache) >> footprint)
    return arguments | less


def precision_arguments(work: InferWork, config: dict[str, Any]) -> dict[str, Any]:
    """dtype and quantisation for vLLM; a checkpoint that is quantised already keeps its own scheme.

    Quantised weights are computed in what the model identity names.
    """
    model = work.model
    quantised = quantization(config).get("quant_method")
    match model.precision:
        case Precision.BFLOAT16 | Precision.FLOAT16 | Precision.FLOAT32:
            return {"dtype": model.precision.value}
        case Precision.GPTQ:
            if quantised != "gptq":
                raise StageFailure(
                    FailureKind.PRECISION,
                    f"Model {model.name} is not quantised with GPTQ. Choose the precision of its weights.",
                )
            return {"dtype": work.identity["dtype"]}
        case Precision.FOUR_BIT:
            return BITSANDBYTES | {"dtype": work.identity["dtype"]}
        case Precision.EIGHT_BIT:
            if quantised != "bitsandbytes":
                raise StageFailure(
                    FailureKind.PRECISION,
                    f"vLLM loads 8-bit weights only where the repository holds them; {model.name} does not. Choose "
                    "bfloat16, or 4bit.",
                )
            return BITSANDBYTES | {"dtype": work.identity["dtype"]}


def context_length(work: InferWork, need: Need, config: dict[str, Any]) -> int | None:
    """Tokens the engine must hold: what the longest request needs, as far as that changes no answer."""
    limit = work.identity.get("context_limit") or text_config(config).get("max_position_embeddings")
    if _context_dependent(config):
        return int(limit) if limit else None
    needed = need.longest + 1
    return min(int(limit), needed) if limit else needed


def _context_dependent(config: dict[str, Any]) -> bool:
    scaling = text_config(config).get("rope_parameters") or text_config(config).get("rope_scaling") or {}
    kinds = [scaling, *(value for value in scaling.values() if isinstance(value, dict))]
    return any(kind.get("rope_type", kind.get("type")) in CONTEXT_DEPENDENT for kind in kinds)


def _refuse_odd_heads(model: Model, config: dict[str, Any]) -> None:
    size = head_size(config)
    latent = "kv_lora_rank" in text_config(config)
    if size is not None and not latent and size not in CPU_HEAD_SIZES:
        raise StageFailure(
            FailureKind.ARCHITECTURE,
            f"Model {model.name} has attention heads of {size}, for which vLLM has no CPU kernel (it has "
            f"{', '.join(map(str, CPU_HEAD_SIZES))}). Run it on a GPU, or with the transformers engine.",
        )


def _cpu_cache_bytes(work: InferWork, length: int | None, *, config: dict[str, Any], info: EngineInfo) -> int:
    """Room for several of the longest requests, within an eighth of the machine's memory."""
    one = cache_bytes_per_token(config, work.model.precision) * ((length or 4096) + CPU_BLOCK)
    most = max(2 * one, (info.memory_bytes or 16 * GIB) // 8)
    return min(max(16 * one, 256 * MIB), most)
