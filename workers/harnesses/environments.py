"""Which harness environments this host has: the one that Evalyard runs in, and those that were added.

An added one is a folder with a virtual environment and `evalyard.json`, which is written last: without it the folder is
half-made and does not count. Makes and removes nothing (`making` does), and starts nothing (`launching` does).
"""

import functools
import importlib.metadata
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

MANIFEST = "evalyard.json"
PACKAGE = "lm_eval"


@dataclass(frozen=True)
class Environment:
    """One version of the harness, ready to run."""

    harness: str
    """Code and version as suites and orders name it, e.g. `lm_eval 0.4.13`."""
    python: Path
    folder: Path | None
    """None of the environment that Evalyard itself runs in."""
    packages: dict[str, str]
    """Versions that decide about prompts and scores, of an added environment as they were when it was made."""

    @property
    def version(self) -> str:
        return self.harness.partition(" ")[2]

    @property
    def is_own(self) -> bool:
        return self.folder is None


def default_folder() -> Path:
    """Where environments lie unless EVALYARD_HARNESSES says otherwise: among the user's data."""
    return Path(platformdirs.user_data_dir("evalyard", appauthor=False)) / "harnesses"


@functools.cache
def own() -> Environment | None:
    """The environment that this process runs in; None where no harness is installed in it."""
    version = _version(PACKAGE)
    if version is None:
        return None
    packages = {name: found for name in NAMED if (found := _version(name)) is not None}
    return Environment(f"{PACKAGE} {version}", Path(sys.executable), None, packages)


NAMED = ("transformers", "tokenizers", "datasets", "math-verify", "nltk")
"""Packages whose versions are shown beside a harness, because prompts or scores depend on them."""


def found(folder: Path) -> list[Environment]:
    """The own environment and the finished ones in `folder`, the oldest version first; a damaged one is left out."""
    environments = {one.harness: one for one in _added(folder)}
    if (mine := own()) is not None:
        environments[mine.harness] = mine
    return [environments[harness] for harness in sorted(environments, key=_in_order)]


def find(folder: Path, harness: str) -> Environment | None:
    """The environment of a harness; for an empty name the own one."""
    return next((one for one in found(folder) if one.harness == harness), None) if harness else own()


def names(folder: Path) -> tuple[str, ...]:
    """What a worker on this host can run, as its heartbeats say it."""
    return tuple(environment.harness for environment in found(folder))


def folder_name(version: str) -> str:
    return f"{PACKAGE}-{version}"


def read_manifest(folder: Path) -> Environment:
    """The environment in a folder.

    Raises:
        OSError, ValueError, KeyError: it is not one, or half-made.
    """
    record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    python = folder / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(f"{python} is gone")
    harness, packages = record["harness"], record["packages"]
    if not isinstance(harness, str) or not isinstance(packages, dict):
        raise ValueError(f"{folder / MANIFEST} is damaged")
    return Environment(harness, python, folder, {str(name): str(version) for name, version in packages.items()})


def _added(folder: Path) -> Iterator[Environment]:
    with suppress(OSError):  # no such folder: nothing was ever added
        for path in sorted(folder.glob(f"{PACKAGE}-*")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                yield read_manifest(path)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _in_order(harness: str) -> tuple[tuple[int, str], ...]:
    """Sorts 0.4.9 before 0.4.10."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in harness.replace(" ", ".").split("."))
