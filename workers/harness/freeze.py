"""Values of documents as JSON and back without loss: what score sees is what prepare saw.

JSON loses tuples, dates, bytes, special floats and keys that are no strings: written as `{"$evalyard": [kind, …]}`.
"""

import base64
import datetime
import math
from typing import Any

MARK = "$evalyard"


class NotFreezable(Exception):
    """A value of type {type} cannot be kept."""


def freeze(value: Any) -> Any:
    """JSON for a value.

    Raises:
        NotFreezable: a type that documents of text tasks do not have.
    """
    if value is None or (isinstance(value, bool | int | str) and type(value) in (bool, int, str, type(None))):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {MARK: ["float", repr(value)]}
    if type(value) is list:
        return [freeze(item) for item in value]
    if type(value) is dict:
        if MARK not in value and all(type(key) is str for key in value):
            return {key: freeze(item) for key, item in value.items()}
        return {MARK: ["dict", [[freeze(key), freeze(item)] for key, item in value.items()]]}
    return {MARK: _freeze_other(value)}


def _freeze_other(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return ["tuple", [freeze(item) for item in value]]
    if isinstance(value, bytes):
        return ["bytes", base64.b64encode(value).decode()]
    if isinstance(value, datetime.datetime):
        return ["datetime", value.isoformat()]
    if isinstance(value, datetime.date):
        return ["date", value.isoformat()]
    if isinstance(value, set | frozenset):
        return ["set", [freeze(item) for item in sorted(value)]]
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return ["numpy", str(value.dtype), freeze(value.tolist())]
    if isinstance(value, dict):
        return ["dict", [[freeze(key), freeze(item)] for key, item in value.items()]]
    if hasattr(value, "__getitem__") and hasattr(value, "__iter__"):
        return ["list", [freeze(item) for item in value]]
    raise NotFreezable(f"A value of type {type(value).__name__} cannot be kept.")


def thaw(value: Any) -> Any:
    """The value that `freeze` was given."""
    if isinstance(value, list):
        return [thaw(item) for item in value]
    if not isinstance(value, dict):
        return value
    if MARK not in value:
        return {key: thaw(item) for key, item in value.items()}
    kind, *rest = value[MARK]
    return _thaw_other(kind, rest)


def _thaw_other(kind: str, rest: list[Any]) -> Any:
    if kind == "numpy":
        import numpy

        return numpy.array(thaw(rest[1]), dtype=rest[0])[()]
    content = rest[0]
    if kind == "float":
        return float(content)
    if kind == "dict":
        return {thaw(key): thaw(item) for key, item in content}
    if kind == "bytes":
        return base64.b64decode(content)
    if kind == "datetime":
        return datetime.datetime.fromisoformat(content)
    if kind == "date":
        return datetime.date.fromisoformat(content)
    items = [thaw(item) for item in content]
    return {"tuple": tuple, "set": set, "list": list}[kind](items)
