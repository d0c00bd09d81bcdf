"""The header of a safetensors file: how many weights of which type it says it holds. Pure; of a stranger's bytes."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

HEADER_BYTES = 25_000_000
"""The limit that huggingface_hub sets for a safetensors header."""
MOST_ELEMENTS = 1 << 50
"""Weights of a model: far more than any has, and few enough for the database."""
DTYPE = re.compile(r"[A-Z0-9_]{1,16}")


class TensorHeader(NamedTuple):
    """What one safetensors file says of its tensors."""

    elements: Mapping[str, int]
    """Number of elements by dtype, e.g. `{"BF16": 7_241_732_096}`."""
    tensors: int


class Unreadable(Exception):
    """A file is there but is not what its name says."""


def parse_header(path: str, header: bytes) -> TensorHeader:
    """Elements by dtype from the JSON of a safetensors header.

    Raises:
        Unreadable: the header is not what the format says.
    """
    try:
        tensors: dict[str, Any] = json.loads(header)
        elements: dict[str, int] = {}
        count = 0
        for name, tensor in tensors.items():
            if name == "__metadata__":
                continue
            dtype = tensor["dtype"]
            if not DTYPE.fullmatch(dtype):
                raise ValueError(dtype)
            elements[dtype] = elements.get(dtype, 0) + _elements(tensor["shape"])
            count += 1
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"{path} has a damaged safetensors header") from error
    return TensorHeader(elements, count)


def _elements(shape: list[int]) -> int:
    """Number of elements; checked at each step, as the product of a hostile header would take days to compute."""
    size = 1
    for length in shape:
        if type(length) is not int or not 0 <= length <= MOST_ELEMENTS:
            raise ValueError(length)
        size *= length
        if size > MOST_ELEMENTS:
            raise ValueError(size)
    return size
