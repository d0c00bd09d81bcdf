"""How a person calls `evalyard` in a terminal of this machine, so that a hint can be pasted as it stands.

It looks at PATH and at where this Python lies; it starts nothing and asks no server.
"""

import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import platformdirs

DEFAULT_URL = "http://127.0.0.1:8765"
"""Where commands look for the hub when nothing says otherwise."""

FIRST_SUBMISSION = "submit org/name --suite open-llm-v1 --limit 20 --wait"
"""A trial of minutes: without a suite and a limit the first thing that somebody starts is the heaviest there is."""


def program() -> str:
    """`evalyard` where PATH leads to this one, else the path that does."""
    python = Path(sys.executable)
    own = python.with_name("evalyard")
    if not own.exists():
        return f"{_program_as_typed(python)} -m submissions.cli"
    found = shutil.which("evalyard")
    return "evalyard" if found and Path(found).samefile(own) else _program_as_typed(own)


def program_for(url: str, data: Path) -> str:
    """The same for another terminal, which must be told an address that it would not find by itself."""
    finds_it = url == DEFAULT_URL or data == default_data()
    return program() if finds_it else f"EVALYARD_URL={shlex.quote(url)} {program()}"


def default_data() -> Path:
    """The data folder where none is given."""
    return Path(platformdirs.user_data_dir("evalyard", appauthor=False))


def data_here() -> Path | None:
    """The data folder of `make demo` and `make up`, where one stands beside it, as whoever follows the README does."""
    folder = Path(".evalyard")
    return folder if (folder / "evalyard.db").is_file() else None


def as_typed(path: Path) -> str:
    """A file or folder as one would type it here: from the present folder where it lies in it, else from the root."""
    return shlex.quote(_from_here(path.resolve()))


def _program_as_typed(path: Path) -> str:
    """The same for a program; a link to one stays that link, and a name alone would be looked for on PATH."""
    text = _from_here(path)
    return shlex.quote(text if "/" in text else f"./{text}")


def _from_here(path: Path) -> str:
    """Relative where it lies below the present folder, as README and Makefile write it."""
    with suppress(OSError, ValueError):
        path = path.relative_to(Path.cwd())
    return str(path)
