"""Says what is wrong with a worker's setting in one sentence with the next step, from what pydantic found.

Values of settings that may hold a secret are never repeated.
"""

import difflib
import os
import re
from collections.abc import Collection, Mapping
from typing import Any

NUMBERS = {"int_parsing": "whole number", "int_from_float": "whole number", "float_parsing": "number"}
BOUNDS = {
    "greater_than_equal": ("too small", "at least", "ge"),
    "greater_than": ("too small", "more than", "gt"),
    "less_than_equal": ("too large", "at most", "le"),
    "less_than": ("too large", "less than", "lt"),
}
JSON_EXAMPLES = {"worker_engine_settings": '{"max_num_seqs": 64}', "worker_task_folders": '["/srv/tasks"]'}


def unknown_variable(variable: str, known: Collection[str]) -> str:
    """Of a variable that no worker knows."""
    near = difflib.get_close_matches(variable, known, n=1, cutoff=0.8)
    return f"There is no setting {variable}. " + (
        f"Did you mean {near[0]}?" if near else "docs/settings.md lists a worker's settings."
    )


def fault(detail: Mapping[str, Any], *, prefix: str, secret: Collection[str]) -> str:
    """Of one error in a pydantic ValidationError, its input included."""
    if not detail["loc"]:
        return str(detail["ctx"]["error"])  # settings that contradict each other: said by whoever checks them
    field = str(detail["loc"][0])
    variable = prefix + field.upper()
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return f"{variable} is not set{_mistyped(variable)}: give it the hub's value (docs/workers.md)."
    given = detail.get("input")
    shown = "its value" if field in secret or isinstance(given, (dict, list)) else f"'{str(given)[:60]}'"
    if kind in NUMBERS:
        return f"{variable}: {shown} is no {NUMBERS[kind]}. Write one in digits."
    if kind in BOUNDS:
        what, word, name = BOUNDS[kind]
        return f"{variable}: {shown} is {what}. Give {word} {_number(context[name])}."
    if kind in ("enum", "literal_error"):
        words = re.findall(r"'([^']*)'", str(context["expected"]))
        near = difflib.get_close_matches(str(given), words, n=1)
        return f"{variable}: {shown} is none of {', '.join(words)}." + (f" Did you mean '{near[0]}'?" if near else "")
    if kind.startswith("byte_size"):
        return f"{variable}: {shown} is no size. Write it as 500GB or 2TiB."
    if kind == "value_error":
        return f"{variable}: {context['error']}."
    if kind in ("dict_type", "tuple_type", "list_type"):
        return not_json(field, prefix=prefix)
    return f"{variable}: {shown} cannot be used: {detail['msg'][0].lower()}{detail['msg'][1:]}."


def not_json(field: str, *, prefix: str) -> str:
    """Of a setting that must be JSON and is not."""
    example = JSON_EXAMPLES.get(field)
    return f"{prefix}{field.upper()}: its value is not the JSON that is wanted" + (
        f". Write it like {example}." if example else "."
    )


def _mistyped(variable: str) -> str:
    """Whether a variable of the environment looks like this one."""
    near = difflib.get_close_matches(variable, [name for name in os.environ if name != variable], n=1, cutoff=0.9)
    return f", and {near[0]} is not its name" if near else ""


def _number(value: float) -> str:
    return f"{value:g}" if value < 1e6 else f"{value:,}".replace(",", " ")
