"""What `--engine-settings` may name: read here, so that a slip is told at once and not after the weights are loaded.

vLLM takes seconds to import and decides much while it does, so its arguments are read from its source.
"""

import ast
import functools
import importlib.util
import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from orchestrator.wire import EngineFamily

VLLM_ARGUMENTS = Path("engine") / "arg_utils.py"


def read_engine_settings(text: str, engine: EngineFamily) -> dict[str, Any]:
    """The settings as JSON gives them; those of vLLM must be arguments that the installed one has.

    Raises:
        typer.BadParameter: it is no JSON object, or a name in it is not known.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"--engine-settings is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter('--engine-settings must be a JSON object, e.g. {"max_num_seqs": 32}.')
    known = vllm_arguments() if engine is EngineFamily.VLLM else frozenset()
    for name in value:
        if known and name not in known:
            near = get_close_matches(name, sorted(known), n=1)
            meant = f" Did you mean '{near[0]}'?" if near else " vLLM's EngineArgs lists them."
            raise typer.BadParameter(f"--engine-settings: vLLM has no setting '{name[:60]}'.{meant}")
    return value


@functools.cache
def vllm_arguments() -> frozenset[str]:
    """Names of the fields of the installed vLLM's EngineArgs; none where they cannot be found."""
    found = importlib.util.find_spec("vllm")
    for folder in (found.submodule_search_locations or ()) if found else ():
        try:
            tree = ast.parse((Path(folder) / VLLM_ARGUMENTS).read_text(encoding="utf-8"))
        except (OSError, SyntaxError):
            continue
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == "EngineArgs":
                fields = (line.target for line in node.body if isinstance(line, ast.AnnAssign))
                return frozenset(field.id for field in fields if isinstance(field, ast.Name))
    return frozenset()
