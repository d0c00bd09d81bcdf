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
BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
"""Of one element, by dtype."""


class TensorHeader(NamedTuple):
    """What one safetensors file says of its tensors."""

    elements: Mapping[str, int]
    """Number of elements by dtype, e.g. `{"BF16": 7_241_732_096}`."""
    tensors: int
    data_bytes: int = 0
    """Bytes that the tensors take in the file, behind the header."""


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
        count = end = 0
        for name, tensor in tensors.items():
            if name == "__metadata__":
                continue
            dtype = tensor["dtype"]
            if not DTYPE.fullmatch(dtype):
                raise ValueError(dtype)
            size = _elements(tensor["shape"])
            first, last = tensor["data_offsets"]
            if type(first) is not int or type(last) is not int or not 0 <= first <= last <= 8 * MOST_ELEMENTS:
                raise ValueError(last)
            if dtype in BYTES and last - first != size * BYTES[dtype]:
                raise ValueError(dtype)
            elements[dtype] = elements.get(dtype, 0) + size
            count += 1
            end = max(end, last)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"{path} has a damaged safetensors header") from error
    return TensorHeader(elements, count, end)


def header_length(path: str, start: bytes, *, file_bytes: int) -> int:
    """Bytes of the header, from the file's first eight.

    Raises:
        Unreadable: no safetensors file begins so.
    """
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or not 2 <= length <= min(HEADER_BYTES, file_bytes - 8):
        raise Unreadable(f"{path} is not a safetensors file, or is cut off")
    return length


def check_length(path: str, header: TensorHeader, *, length: int, file_bytes: int) -> TensorHeader:
    """The header, after making sure that the file is as long as it says.

    Raises:
        Unreadable: it is not.
    """
    if file_bytes != (said := 8 + length + header.data_bytes):
        raise Unreadable(f"{path} has {file_bytes} bytes where its header says {said}")
    return header


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
