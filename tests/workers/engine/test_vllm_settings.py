from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire import EngineFamily, EngineInfo, FailureKind, Model, Precision
from tests.workers.engine.factories import IDENTITY, infer_work
from workers.engine.adapter import Adapter
from workers.engine.engine import Need
from workers.engine.vllm_settings import VllmSettings, derive
from workers.stage import StageFailure

CPU = EngineInfo(family=EngineFamily.VLLM, version="1", device_type="cpu", device="a CPU", memory_bytes=16 << 30)
GPU = EngineInfo(family=EngineFamily.VLLM, version="1", device_type="cuda", device="a GPU", memory_bytes=80 << 30)
TWO = GPU.model_copy(update={"device_count": 2})
LLAMA: dict[str, Any] = {
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 16,
    "max_position_embeddings": 4096,
}
LORA = Adapter(Path("/lora"), rank=12, widest=8192, modules=("q_proj", "v_proj"), names=("q_proj", "v_proj"))


def settings(
    *,
    config: dict[str, Any] | None = None,
    info: EngineInfo = CPU,
    precision: Precision = Precision.BFLOAT16,
    longest: int = 900,
    weight_bytes: int = 1 << 30,
    given: dict[str, Any] | None = None,
    identity: dict[str, Any] | None = None,
    footprint: int = 0,
    adapter: Adapter | None = None,
    generates: bool = True,
) -> VllmSettings:
    work = infer_work(
        {},
        engine=EngineFamily.VLLM,
        model=Model(name="org/m", revision="sha256-0", precision=precision),
        settings=given or {},
        identity=IDENTITY if identity is None else identity,
        footprint=footprint,
    )
    return derive(
        work,
        Need(100, longest, generates=generates),
        config=LLAMA | (config or {}),
        info=info,
        weight_bytes=weight_bytes,
        adapter=adapter,
    )


def refused(**facts: Any) -> StageFailure:
    with pytest.raises(StageFailure) as caught:
        settings(**facts)
    return caught.value


@pytest.mark.parametrize(("longest", "length"), [(900, 901), (2048, 2048), (5000, 2048)])
def test_the_engine_holds_what_the_longest_request_needs_within_the_limit(longest: int, length: int) -> None:
    assert settings(longest=longest).arguments["max_model_len"] == length


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_a_rotary_scaling_that_follows_the_context_length_keeps_the_model_s_own(kind: str) -> None:
    for config in ({"rope_scaling": {"type": kind}}, {"rope_parameters": {"full": {"rope_type": kind}}}):
        assert settings(config=config).arguments["max_model_len"] == 2048
        assert "max_model_len" in refused(config=config, given={"max_model_len": 100}).sentence


def test_the_engine_has_no_tokenizer_where_nothing_is_generated_and_the_model_is_of_text_alone() -> None:
    assert settings(generates=False).arguments["skip_tokenizer_init"] is True
    assert "skip_tokenizer_init" not in settings().arguments
    pictures = {"text_config": LLAMA, "vision_config": {}}
    assert "skip_tokenizer_init" not in settings(config=pictures, generates=False).arguments


def test_an_engine_without_a_tokenizer_does_not_stay_for_a_work_that_generates() -> None:
    scoring, texts = Need(1, 100, generates=False), Need(1, 50, generates=True)
    assert not scoring.holds(texts)
    assert texts.holds(Need(9, 50, generates=False))
    assert not texts.holds(scoring)


def test_on_one_device_the_engine_lives_in_this_process_and_not_on_several() -> None:
    assert settings().environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in settings(info=TWO, given={"tensor_parallel_size": 2}).environment


def test_on_a_cpu_the_cache_is_small_and_blocks_fit_its_kernels() -> None:
    arguments = settings().arguments
    assert arguments["kv_cache_memory_bytes"] <= 2 << 30
    assert arguments["block_size"] % 32 == 0
    assert arguments["enforce_eager"] is True
    assert "kv_cache_memory_bytes" not in settings(info=GPU).arguments


def test_the_operator_s_settings_win_but_cannot_change_the_answers() -> None:
    assert settings(given={"max_num_seqs": 3}).arguments["max_num_seqs"] == 3
    for name in (
        "trust_remote_code",
        "load_format",
        "dtype",
        "quantization",
        "logprobs_mode",
        "worker_cls",
        "hf_token",
        "scheduler_cls",
        "watermark_config",
        "spec_model",
    ):
        assert name in refused(given={name: "x"}).sentence


@pytest.mark.parametrize(
    ("precision", "arguments"),
    [
        (Precision.BFLOAT16, {"dtype": "bfloat16"}),
        (Precision.FLOAT16, {"dtype": "float16"}),
        (Precision.FLOAT32, {"dtype": "float32"}),
        (Precision.FOUR_BIT, {"dtype": "float32", "quantization": "bitsandbytes", "load_format": "bitsandbytes"}),
    ],
)
def test_a_precision_becomes_the_engine_s_arguments(precision: Precision, arguments: dict[str, str]) -> None:
    assert settings(precision=precision, info=GPU).arguments.items() >= arguments.items()


def test_bitsandbytes_is_refused_on_a_cpu_before_anything_is_loaded() -> None:
    failure = refused(precision=Precision.FOUR_BIT)
    assert (failure.kind, "on a CPU" in failure.sentence) == (FailureKind.PRECISION, True)


def test_gptq_needs_weights_that_are_quantised_so() -> None:
    assert refused(precision=Precision.GPTQ).kind is FailureKind.PRECISION
    quantised = settings(precision=Precision.GPTQ, config={"quantization_config": {"quant_method": "gptq"}})
    assert quantised.arguments["dtype"] == IDENTITY["dtype"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_quantised_weights_are_computed_in_the_type_that_the_identity_names(dtype: str) -> None:
    other = {"dtype": "float16" if dtype == "bfloat16" else "bfloat16"}
    for precision, method in (
        (Precision.GPTQ, "gptq"), (Precision.EIGHT_BIT, "bitsandbytes"), (Precision.FOUR_BIT, "bitsandbytes")
    ):  # fmt: skip
        config = other | {"quantization_config": {"quant_method": method}}
        found = settings(precision=precision, config=config, info=GPU, identity=IDENTITY | {"dtype": dtype})
        assert found.arguments["dtype"] == dtype


def test_eight_bits_are_not_made_on_the_fly() -> None:
    assert refused(precision=Precision.EIGHT_BIT).kind is FailureKind.PRECISION


def test_odd_attention_heads_are_refused_on_a_cpu_only() -> None:
    failure = refused(config={"head_dim": 24})
    assert (failure.kind, "heads of 24" in failure.sentence) == (FailureKind.ARCHITECTURE, True)
    settings(config={"head_dim": 24}, info=GPU)


def test_weights_larger_than_the_gpu_are_refused_before_they_are_loaded() -> None:
    assert refused(info=GPU, weight_bytes=90 << 30).kind is FailureKind.OUT_OF_MEMORY
    settings(info=TWO, weight_bytes=90 << 30, given={"tensor_parallel_size": 2})


def test_more_gpus_than_the_engine_sees_are_refused_whoever_asks_for_them() -> None:
    failure = refused(info=TWO, given={"tensor_parallel_size": 4})
    assert (failure.kind, failure.lasting) == (FailureKind.ENGINE, True)
    assert "asks for 4 GPUs, and the engine sees 2" in failure.sentence


def test_after_running_out_of_memory_the_engine_computes_half_as_much_at_a_time_for_each_level() -> None:
    given = {"max_num_seqs": 100, "max_num_batched_tokens": 4096, "gpu_memory_utilization": 0.8}
    levels = [settings(info=GPU, given=given, footprint=level).arguments for level in range(4)]
    assert [level["max_num_seqs"] for level in levels] == [100, 50, 25, 12]
    assert [level["max_num_batched_tokens"] for level in levels] == [4096, 2048, 1024, 512]
    assert [level["gpu_memory_utilization"] for level in levels] == [0.8, 0.75, 0.7, 0.65]


def test_the_first_engine_is_told_what_the_next_ones_get_half_of() -> None:
    for info, sequences, tokens in ((GPU, 256, 8192), (CPU, 64, 4096)):
        levels = [settings(info=info, footprint=level).arguments for level in range(4)]
        assert [level["max_num_seqs"] for level in levels] == [sequences >> level for level in range(4)]
        assert [level["max_num_batched_tokens"] for level in levels] == [tokens >> level for level in range(4)]


@pytest.mark.parametrize(
    ("given", "longest", "step"),
    [
        ({}, 9, (256, 2560)),
        ({"max_num_seqs": 3}, 900, (3, 2703)),
        ({"max_num_batched_tokens": 100}, 900, (100, 100)),
        ({"max_num_seqs": 512, "max_num_batched_tokens": 600}, 900, (512, 600)),
    ],
)
def test_a_step_is_no_wider_than_it_is_long(given: dict[str, int], longest: int, step: tuple[int, int]) -> None:
    found = settings(info=GPU, given=given, longest=longest).arguments
    assert (found["max_num_seqs"], found["max_num_batched_tokens"]) == step
    less = settings(info=GPU, given=given, longest=longest, footprint=3).arguments
    assert less["max_num_seqs"] <= less["max_num_batched_tokens"]


def test_on_a_cpu_a_smaller_footprint_has_a_smaller_cache_too() -> None:
    caches = [settings(footprint=level).arguments["kv_cache_memory_bytes"] for level in range(3)]
    assert caches[1] == caches[0] // 2
    assert caches[2] == caches[0] // 4
    assert "gpu_memory_utilization" not in settings(footprint=1).arguments


def test_weights_larger_than_the_device_are_refused_for_good() -> None:
    failure = refused(info=GPU, weight_bytes=100 << 30)
    assert (failure.kind, failure.lasting) == (FailureKind.OUT_OF_MEMORY, True)


@pytest.mark.parametrize(("rank", "room"), [(1, 8), (8, 8), (12, 16), (300, 320), (512, 512)])
def test_room_for_an_adapter_is_kept_in_the_modules_that_it_changes(rank: int, room: int) -> None:
    arguments = settings(info=GPU, adapter=replace(LORA, rank=rank)).arguments
    assert (arguments["enable_lora"], arguments["max_lora_rank"]) == (True, room)
    assert arguments["lora_target_modules"] == ["q_proj", "v_proj"]
    assert arguments["max_num_batched_tokens"] == 8192
    assert "enable_lora" not in settings(info=GPU).arguments


def test_an_adapter_that_vllm_would_apply_wrongly_is_refused_with_the_way_out() -> None:
    for adapter in (replace(LORA, modules=("lm_head",)), replace(LORA, rank=513)):
        failure = refused(adapter=adapter)
        assert failure.kind is FailureKind.ARCHITECTURE
        assert "Merge it into its base model" in failure.sentence


@pytest.mark.parametrize(("widest", "tokens"), [(640, 4096), (8192, 2048), (65_536, 256), (10_000_000, 64)])
def test_on_a_cpu_a_step_is_no_longer_than_the_copies_of_the_adapter_have_room(widest: int, tokens: int) -> None:
    assert settings(adapter=replace(LORA, widest=widest)).arguments["max_num_batched_tokens"] == tokens


def test_several_gpus_are_taken_as_the_weights_need_them_and_as_the_operator_says() -> None:
    four = GPU.model_copy(update={"device_count": 4})
    assert settings(info=four).arguments["tensor_parallel_size"] == 1
    split = settings(info=four, weight_bytes=100 << 30)
    assert split.arguments["tensor_parallel_size"] == 2
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in split.environment
    assert settings(info=four, given={"tensor_parallel_size": 4}).arguments["tensor_parallel_size"] == 4
