"""What the JSON body of an API operation holds, field by field in words, from the OpenAPI description. Pure."""

import json
from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]


def body_fields(schema: Record, operation: Record) -> list[tuple[str, str]]:
    """Each field of the JSON that an operation takes, with what it may be and means; empty without a body."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    body = _resolved(schema, content.get("schema", {}))
    required = body.get("required", [])
    return [
        (name, f"{_kind(schema, field, required=name in required)}. {field.get('description', '')}".strip())
        for name, field in body.get("properties", {}).items()
    ]


def _kind(schema: Record, field: Record, *, required: bool) -> str:
    kinds = [_resolved(schema, kind) for kind in field.get("anyOf", [field])]
    constants = [kind["const"] for kind in kinds if "const" in kind]
    choices = [*constants, *(choice for kind in kinds for choice in kind.get("enum", []))]
    types = [str(kind["type"]) for kind in kinds if kind.get("type", "null") != "null"]
    said = [f"one of {', '.join(map(str, choices))}" if choices else " or ".join(types)]
    said += ["required"] if required else []
    said += [f"default {json.dumps(field['default'])}"] if field.get("default") is not None else []
    return ", ".join(said)


def _resolved(schema: Record, part: Record) -> Record:
    """The part itself, or the model that it refers to."""
    name = str(part.get("$ref", "")).rpartition("/")[2]
    found: Record = schema["components"]["schemas"].get(name, part)
    return found
