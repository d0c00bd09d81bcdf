"""What a model needs of GPUs is the same for the hub, which has a few facts of its config, and for a worker."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.footprint import (
    GIB,
    Footprint,
    active_parameters,
    fewest_devices,
    footprint,
    kept_facts,
    loaded_bytes,
    sharing,
)
from orchestrator.wire import Precision

BIG: dict[str, Any] = {
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "dtype": "bfloat16",
}
MIXTRAL: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}


@pytest.mark.parametrize(
    ("precision", "config", "loaded"),
    [
        (Precision.BFLOAT16, {"dtype": "float32"}, 50),
        (Precision.FLOAT32, {"torch_dtype": "torch.bfloat16"}, 200),
        (Precision.FLOAT16, {}, 100),
        (Precision.BFLOAT16, {"text_config": {"dtype": "float32"}}, 50),
        (Precision.FOUR_BIT, {"dtype": "bfloat16"}, 35),
        (Precision.GPTQ, {"dtype": "float16", "quantization_config": {"quant_method": "gptq"}}, 100),
    ],
)
def test_weights_count_as_they_are_loaded(precision: Precision, config: dict[str, Any], loaded: float) -> None:
    assert loaded_bytes(config, precision, 100) == pytest.approx(loaded)


@pytest.mark.parametrize(
    "config",
    [BIG, {"text_config": BIG}, BIG | {"quantization_config": {"quant_method": "gptq", "bits": 4}}, {}, {"dtype": 3}],
)
def test_the_facts_that_are_kept_give_the_same_footprint_as_the_whole_config(config: dict[str, Any]) -> None:
    assert footprint(kept_facts(config), Precision.BFLOAT16, 100) == footprint(config, Precision.BFLOAT16, 100)


@pytest.mark.parametrize("bad", ["64", -1, 0, True, 1 << 40, None, [64], float("nan")])
def test_what_is_no_number_of_a_config_is_not_known(bad: Any) -> None:
    config = dict.fromkeys(BIG, bad)
    assert kept_facts({name: bad for name in BIG if name != "dtype"}) == {}
    assert footprint(config, Precision.BFLOAT16, GIB).heads == 1


def test_a_mixture_of_experts_computes_with_the_experts_that_it_asks() -> None:
    assert active_parameters(MIXTRAL, 46_702_792_704) == pytest.approx(12.9e9, rel=0.01)
    assert active_parameters(BIG, 70_000_000_000) == 70_000_000_000
    # More experts than the weights can be: the config is wrong, the weights are not.
    assert active_parameters(MIXTRAL, 1000) == 1000


needs = st.builds(
    Footprint,
    weight_bytes=st.floats(0, 2000 * GIB),
    cache_bytes=st.floats(0, 1 << 21),
    heads=st.sampled_from([1, 12, 14, 24, 32, 64]),
    key_heads=st.sampled_from([1, 2, 3, 8, 32]),
)


@settings(deadline=None)
@given(needs, st.integers(1, 16), st.integers(1, 192), st.integers(1, 32_768))
def test_the_fewest_gpus_hold_the_weights_and_one_size_less_does_not_hold_the_work(
    need: Footprint, count: int, gib: int, context: int
) -> None:
    found = fewest_devices(need, memory_bytes=gib * GIB, count=count, context=context)
    if found is None:
        assert need.weight_bytes > (0.92 * gib - 2) * GIB * sharing(need, count)[-1]
        return
    assert found <= count
    assert need.divides(found)
    assert need.weight_bytes <= (0.92 * gib - 2) * GIB * found
    more = fewest_devices(need, memory_bytes=gib * GIB, count=2 * count, context=context)
    assert more is not None
    assert more >= found
