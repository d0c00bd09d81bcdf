"""Writes docs/cli.md and docs/settings.md from the code: `python -m deploy.reference`. A test compares them.

The words are those of the commands' own help and of the settings' own docstrings; nothing is said twice.
"""

import ast
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from orchestrator.settings import PREFIX, HubSettings
from workers.settings import WorkerSettings

DOCS = Path(__file__).resolve().parent.parent / "docs"
MADE = "<!-- Written by `python -m deploy.reference`; a test fails when it is stale. -->\n"
OTHER_VARIABLES = {
    "EVALYARD_URL": (
        "Address of the hub that the commands speak to. By default the one that a running `evalyard up` left in its "
        "data folder, else `http://127.0.0.1:8765`."
    ),
    "EVALYARD_TOKEN": (
        "Token that the commands give to the hub, where it has accounts; never an argument, which others would see. By "
        "default the one that `evalyard login` kept."
    ),
    "EVALYARD_CACHE": (
        "Folder for what harness stages keep between runs (lm-eval's task index, a sentence splitter); may be deleted "
        "at any time. By default the user's cache folder."
    ),
}


def write_cli() -> str:
    """The reference of every command, from its own help."""
    from submissions.cli import make_app

    command: Any = typer.main.get_command(make_app())
    parts = [MADE, "# Commands\n", _fenced(_help(command, "evalyard"))]
    for name, sub in command.commands.items():
        parts += [f"## evalyard {name}\n", _fenced(_help(sub, f"evalyard {name}"))]
        for word, part in getattr(sub, "commands", {}).items():
            parts += [f"### evalyard {name} {word}\n", _fenced(_help(part, f"evalyard {name} {word}"))]
    return "\n".join(parts)


def write_settings() -> str:
    """The reference of every setting, from its record."""
    own = [name for name in WorkerSettings.model_fields if name not in HubSettings.model_fields]
    parts = [
        MADE,
        "# Settings\n",
        "Every setting is an environment variable, read once when a process starts. A variable that begins with "
        f"`{PREFIX}` and that no process knows stops the start, with the nearest known name.\n",
        "## The hub: web and control\n",
        _table(HubSettings, list(HubSettings.model_fields)),
        "## Workers\n",
        "A worker reads `EVALYARD_BROKER_URL`, `EVALYARD_ARTIFACTS_URL`, `EVALYARD_ENGINE`, `EVALYARD_DATASETS`, "
        "`EVALYARD_MODELS`, `EVALYARD_HARNESSES` and `EVALYARD_HUB_TOKEN` as the hub does, never the database's "
        "address, and besides:\n",
        _table(WorkerSettings, own),
        "## The command line and the stage programs\n",
        "\n".join(
            ["| variable | meaning |", "| --- | --- |", *(f"| `{k}` | {v} |" for k, v in OTHER_VARIABLES.items())]
        ),
    ]
    return "\n".join(parts) + "\n"


def stale(docs: Path = DOCS) -> list[str]:
    """Names of the reference files that are not what the code says now."""
    return [name for name, text in _files().items() if not (docs / name).is_file() or (docs / name).read_text() != text]


def main() -> int:
    DOCS.mkdir(exist_ok=True)
    for name, text in _files().items():
        (DOCS / name).write_text(text)
        print(f"Wrote {DOCS / name}.", file=sys.stderr)
    return 0


def _files() -> dict[str, str]:
    return {"cli.md": write_cli(), "settings.md": write_settings()}


def _help(command: Any, name: str) -> str:
    """The help text at a fixed width, whatever the terminal is."""
    context = command.make_context(name, [], resilient_parsing=True, terminal_width=100, max_content_width=100)
    text: str = command.get_help(context)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```\n"


def _table(record: type[BaseModel], names: list[str]) -> str:
    meanings = _docstrings(record)
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name in names:
        meaning = meanings.get(name, "")
        default = "see right" if "by default" in meaning else _default(record, name)
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _default(record: type[BaseModel], name: str) -> str:
    field = record.model_fields[name]
    if field.default_factory not in (None, dict, list):
        return "see right"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "needed"
    if value is None or value == "" or value == ():
        return "–"
    return f"`{getattr(value, 'value', value)}`"


def _docstrings(record: type[BaseModel]) -> dict[str, str]:
    """The string below each field: Python itself forgets it."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(record))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(after.value.value).split()).replace("|", "\\|")
    return found


if __name__ == "__main__":
    sys.exit(main())
