"""Documents come back from JSON as they were."""

import datetime
import json
import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.harness.freeze import NotFreezable, freeze, thaw

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
)


@given(plain)
def test_a_value_survives_json(value: object) -> None:
    back = thaw(json.loads(json.dumps(freeze(value))))
    assert back == value
    assert type(back) is type(value)


def test_special_floats_dates_and_arrays_survive() -> None:
    back = thaw(
        json.loads(
            json.dumps(freeze({"n": math.nan, "a": numpy.array([1.5, 2.0]), "d": datetime.datetime(2024, 1, 2)}))
        )
    )
    assert math.isnan(back["n"])
    assert back["a"].tolist() == [1.5, 2.0]
    assert back["d"] == datetime.datetime(2024, 1, 2)


def test_key_order_is_kept_because_document_hashes_depend_on_it() -> None:
    assert list(thaw(json.loads(json.dumps(freeze({"b": 1, "a": 2}))))) == ["b", "a"]


def test_a_value_that_no_text_task_has_is_refused() -> None:
    with pytest.raises(NotFreezable):
        freeze(object())
