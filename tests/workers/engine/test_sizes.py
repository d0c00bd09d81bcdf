"""One engine takes the fewest GPUs that hold its weights and some cache, as far as the heads can be shared out."""

from typing import Any

import pytest

from orchestrator.footprint import GIB
from orchestrator.wire import EngineFamily, EngineInfo, FailureKind, Model, Precision
from workers.engine.info import smallest_memory, visible_gpus
from workers.engine.sizes import tensor_parallel_size
from workers.stage import StageFailure

BIG: dict[str, Any] = {
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "dtype": "bfloat16",
}
"""As large models of 70 billion weights are."""


def model(precision: Precision = Precision.BFLOAT16) -> Model:
    return Model(name="org/m", revision="0", precision=precision)


def gpus(count: int, gib: int | None = 80) -> EngineInfo:
    return EngineInfo(
        family=EngineFamily.VLLM,
        version="1",
        device_type="cuda",
        device="a GPU",
        device_count=count,
        memory_bytes=gib and gib * GIB,
    )


def size(count: int, weights_gib: float, **facts: Any) -> int:
    return tensor_parallel_size(
        facts.get("model", model()),
        BIG | facts.get("config", {}),
        info=facts.get("info", gpus(count)),
        weight_bytes=int(weights_gib * GIB),
        context=facts.get("context", 2048),
    )


@pytest.mark.parametrize(
    ("count", "weights_gib", "expected"),
    [(1, 16, 1), (8, 16, 1), (8, 64, 2), (2, 131, 2), (8, 136, 4), (2, 136, 2), (3, 100, 2), (8, 500, 8)],
)
def test_an_engine_takes_the_smallest_power_of_two_that_holds_it(count: int, weights_gib: float, expected: int) -> None:
    assert size(count, weights_gib) == expected


def test_a_long_context_asks_for_room_beside_the_weights() -> None:
    assert size(8, 50, context=1024) == 1
    assert size(8, 50, context=16_384) == 2


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_attention_heads": 14, "num_key_value_heads": 2}, 2),
        ({"num_attention_heads": 64, "num_key_value_heads": 1}, 8),
        ({"num_attention_heads": 24, "num_key_value_heads": 3}, 1),
        ({"text_config": {"num_attention_heads": 12, "num_key_value_heads": 4, "num_hidden_layers": 80}}, 4),
    ],
)
def test_the_heads_fall_evenly_on_the_gpus(config: dict[str, Any], expected: int) -> None:
    assert size(8, expected * 60 if expected > 1 else 20, config=config) == expected


def test_what_no_number_of_gpus_holds_is_refused_before_it_is_loaded() -> None:
    for count, config, words in (
        (1, {}, "more than a GPU of 80 GiB holds"),
        (4, {}, "more than 4 × a GPU of 80 GiB holds"),
        (8, {"num_attention_heads": 14, "num_key_value_heads": 2}, "no more of its 8 GPUs can share the heads"),
    ):
        with pytest.raises(StageFailure) as caught:
            size(count, 400, config=config)
        assert caught.value.kind is FailureKind.OUT_OF_MEMORY
        assert words in caught.value.sentence
        assert caught.value.lasting


def test_without_knowledge_of_the_memory_one_device_is_tried() -> None:
    assert size(8, 131, info=gpus(8, None)) == 1


TOLD = """0, GPU-aaa, 81559
1, GPU-bbb, 40536
2, GPU-ccc, [N/A]
"""


@pytest.mark.parametrize(
    ("visible", "mebibytes"),
    [(None, 40536), ("0", 81559), ("GPU-aaa", 81559), ("1,0", 40536), ("2", 40536), ("MIG-aaa", None)],
)
def test_the_smallest_visible_gpu_counts(visible: str | None, mebibytes: int | None) -> None:
    assert smallest_memory(TOLD, visible) == (mebibytes << 20 if mebibytes else None)
    assert smallest_memory("NVIDIA-SMI has failed", visible) is None


INSTALLED = [("H100", "GPU-aaa"), ("A100", "GPU-bbb"), ("L4", "GPU-ccc")]


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["H100", "A100", "L4"]),
        ("2,0", ["L4", "H100"]),
        ("GPU-bbb", ["A100"]),
        ("1,7,0", ["A100"]),
        ("MIG-x, MIG-y", ["H100", "H100"]),
        ("", []),
        ("-1", []),
    ],
)
def test_the_gpus_that_a_process_sees_are_those_that_its_variable_lists(visible: str | None, names: list[str]) -> None:
    assert visible_gpus(INSTALLED, visible) == names


def test_where_the_driver_keeps_uuids_to_itself_they_are_believed() -> None:
    assert visible_gpus([("H100", "GPU-????????")], "GPU-aaa,GPU-bbb") == ["H100", "H100"]
