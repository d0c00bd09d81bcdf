"""The console script: from its first moment on Ctrl-C is a word and an exit code."""

import subprocess
import sys
import tomllib
from pathlib import Path

INTERRUPTED = """
import sys

class AtThatMoment:
    def find_spec(name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, AtThatMoment)
from submissions.entry import main
main()
"""


def test_ctrl_c_while_the_command_is_loaded_is_no_traceback() -> None:
    ran = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "Stopped.\n")


def test_a_command_that_asks_a_server_loads_no_database_no_store_and_no_harness() -> None:
    """They cost more than all the rest of it, at each call."""
    asked = "import sys, submissions.cli as it\ntry: it.main(['status', '--help'])\nfinally: print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("Usage: evalyard status")
    loaded = set(ran.stdout.split())
    assert "submissions.cli.exchange" in loaded
    assert loaded & {"sqlalchemy", "sqlmodel", "alembic", "fsspec", "celery", "fastapi", "torch", "lm_eval"} == set()


def test_the_console_script_begins_there() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"]["evalyard"] == "submissions.entry:main"
