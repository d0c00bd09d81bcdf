"""How a stage program is started in a harness environment: with which python, and where it finds Evalyard's code.

Evalyard's code reaches an added environment through a folder with two links, `orchestrator` and `workers`. Of the
packages that Evalyard itself runs on, it sees none.
"""

import hashlib
import os
import sys
import threading
from pathlib import Path

from workers.harness import folders
from workers.harnesses import environments
from workers.harnesses.environments import Environment

ROOT = Path(__file__).resolve().parents[2]
"""Folder of Evalyard's packages: a checkout, or the site-packages that it is installed in."""

LINKED = ("orchestrator", "workers")
"""Packages that stage programs import."""


class HarnessMissing(Exception):
    """This host has no environment of the harness that the work needs; the text says what to do."""


def launch(harness: str, folder: Path) -> tuple[str, dict[str, str]]:
    """The python for work that needs this harness, and what its program is told beside what every stage is.

    `folder` holds the added environments. An empty name takes the environment that Evalyard runs in.

    Raises:
        HarnessMissing: there is none here.
        OSError: the links to Evalyard's code cannot be written to the cache.
    """
    if not harness:
        return sys.executable, {}
    environment = environments.find(folder, harness)
    if environment is None:
        wanted = harness.replace(f"{environments.PACKAGE} ", "lm-eval==")
        raise HarnessMissing(f"This host has no environment of {harness}. Add it: evalyard harness add {wanted}")
    return python_of(environment)


def python_of(environment: Environment) -> tuple[str, dict[str, str]]:
    """The python of an environment, and what a program in it is told beside what every stage is.

    Raises:
        OSError: the links to Evalyard's code cannot be written to the cache.
    """
    if environment.folder is None:
        return sys.executable, {}
    return str(environment.python), {
        "PYTHONPATH": str(_code(folders.cache())),
        "PYTHONNOUSERSITE": "1",
        "VIRTUAL_ENV": str(environment.folder),
    }


def _code(cache: Path) -> Path:
    """A folder with links to Evalyard's code and nothing else; one for each place that Evalyard runs from."""
    folder = cache / "code" / hashlib.sha256(str(ROOT).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        link = folder / name
        if not link.is_dir():
            temporary = folder / f".{name}.{os.getpid()}.{threading.get_ident()}"
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(ROOT / name, target_is_directory=True)
            temporary.replace(link)
    return folder
