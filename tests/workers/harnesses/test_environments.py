"""Harness environments as folders: which count, how a program is started in one, and what a failed making leaves."""

import functools
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from workers.harnesses import environments, launching, making

OWN = environments.own()

UV = """#!/bin/sh
echo started > "$MARK"
{body}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALYARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "harnesses"


def put(folder: Path, version: str, *, finished: bool = True) -> Path:
    """An environment of nothing but this Python."""
    place = folder / environments.folder_name(version)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    if finished:
        record = {"harness": f"lm_eval {version}", "packages": {"datasets": "5.2.0"}}
        (place / environments.MANIFEST).write_text(json.dumps(record))
    return place


def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """Puts a `uv` that does this first on the path; returns the file that it writes when it is started."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "uv").write_text(UV.format(body=body))
    (tools / "uv").chmod(0o755)
    mark = tmp_path / "mark"
    monkeypatch.setenv("MARK", str(mark))
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return mark


def test_the_own_environment_is_always_one_of_the_list(folder: Path) -> None:
    assert OWN is not None
    assert environments.names(folder) == (OWN.harness,)


def test_versions_are_listed_as_numbers_and_only_whole_environments_count(folder: Path) -> None:
    for version in ("0.4.10", "0.4.9", "0.3.0"):
        put(folder, version)
    put(folder, "0.4.8", finished=False)
    (put(folder, "0.4.7") / environments.MANIFEST).write_text("{")
    (put(folder, "0.4.6") / "bin" / "python").unlink()
    added = [one.harness for one in environments.found(folder) if not one.is_own]
    assert added == ["lm_eval 0.3.0", "lm_eval 0.4.9", "lm_eval 0.4.10"]


def test_a_program_in_another_environment_sees_evalyards_code_and_none_of_its_packages(folder: Path) -> None:
    place = put(folder, "0.4.10")
    python, environment = launching.launch("lm_eval 0.4.10", folder)
    assert python == str(place / "bin" / "python")
    code = Path(environment["PYTHONPATH"])
    assert sorted(entry.name for entry in code.iterdir()) == ["orchestrator", "workers"]
    assert (code / "workers").resolve() == launching.ROOT / "workers"


def test_links_of_an_evalyard_that_moved_are_made_anew(folder: Path) -> None:
    put(folder, "0.4.10")
    code = Path(launching.launch("lm_eval 0.4.10", folder)[1]["PYTHONPATH"])
    (code / "workers").unlink()
    (code / "workers").symlink_to(folder / "gone")
    launching.launch("lm_eval 0.4.10", folder)
    assert (code / "workers" / "stage.py").is_file()


def test_a_harness_that_is_not_here_is_refused_with_the_command_that_adds_it(folder: Path) -> None:
    with pytest.raises(launching.HarnessMissing, match=r"evalyard harness add lm-eval==9\.9\.9"):
        launching.launch("lm_eval 9.9.9", folder)


@pytest.mark.parametrize("text", ["lm-eval==0.4.13", "lm_eval==0.4.13", "0.4.13", " 0.4.13 "])
def test_a_version_is_taken_with_or_without_its_package(text: str) -> None:
    assert making.wanted_version(text) == "0.4.13"


@pytest.mark.parametrize("text", ["", "lm-eval", "evil==1.0", "lm-eval>=0.4", "0.4.13; rm -rf /", "../1.0", "-e ."])
def test_anything_else_is_no_version(text: str) -> None:
    with pytest.raises(making.CannotMake, match="names no harness version"):
        making.wanted_version(text)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("error: No solution found when resolving dependencies\n  cause: Because there is no version of "
         "lm-eval[ifeval]==0.9.9 and you require it", "has no lm-eval 0.9.9"),
        ("ERROR: No matching distribution found for lm-eval[ifeval,math]==0.9.9", "has no lm-eval 0.9.9"),
        ("  cause: Failed to fetch: https://example.org/simple/\n  cause: dns error", "cannot be reached"),
        ("WARNING: Retrying: NewConnectionError(...)\nERROR: No matching distribution found for lm-eval==0.9.9",
         "cannot be reached"),
        ("error: No solution found: x depends on y<1 and you require y>=1", "cannot be installed together"),
        ("error: No space left on device", "disk is full"),
        ("error: the moon is in the way", "the moon is in the way"),
    ],
)  # fmt: skip
def test_what_an_installer_fails_of_becomes_a_sentence_and_leaves_nothing(
    words: str, sentence: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer(tmp_path, monkeypatch, f"cat <<'END'\n{words}\nEND\nexit 1")
    with pytest.raises(making.CannotMake, match=sentence):
        making.add(folder, "0.9.9", say=lambda line: None)
    assert [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")] == []


def test_an_environment_that_does_not_work_does_not_count(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer(tmp_path, monkeypatch, "exit 0")
    with pytest.raises(making.CannotMake, match="does not work"):
        making.add(folder, "0.9.9", say=lambda line: None)
    assert not (folder / environments.folder_name("0.9.9")).exists()


def test_ctrl_c_leaves_nothing_half_made(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    installer(tmp_path, monkeypatch, f'echo up > "{pipe}"; exec tail -f /dev/null')
    monkeypatch.setenv("EVALYARD_HARNESSES", str(folder))
    command = [sys.executable, "-m", "submissions.cli", "harness", "add", "0.9.9"]
    # Tests that run in the background of a script ignore the signal, and so would the command.
    heeding = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, cwd=launching.ROOT, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heeding
    )
    pipe.read_text()  # returns when the installer runs
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, words = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, words
    assert not (folder / environments.folder_name("0.9.9")).exists()


def test_the_own_environment_is_never_removed(folder: Path) -> None:
    assert OWN is not None
    with pytest.raises(making.CannotMake, match="and stays"):
        making.remove(folder, OWN.version)


def test_a_removed_environment_is_gone_from_the_list(folder: Path) -> None:
    put(folder, "0.4.10")
    making.remove(folder, "0.4.10")
    assert environments.find(folder, "lm_eval 0.4.10") is None
    with pytest.raises(making.CannotMake, match="no environment"):
        making.remove(folder, "0.4.10")


def test_an_environment_whose_files_cannot_be_removed_is_named_with_the_next_step(folder: Path) -> None:
    put(folder, "0.4.10")
    place = environments.find(folder, "lm_eval 0.4.10").folder
    (place / making.MANIFEST).unlink()
    (place / making.MANIFEST).mkdir()  # nothing that can be unlinked, whoever asks
    with pytest.raises(making.CannotMake, match=f"Remove {place} as its owner"):
        making.remove(folder, "0.4.10")


def test_an_installer_and_what_it_builds_see_no_credentials_but_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    installer(tmp_path, monkeypatch, f"env > {told}\nexit 3")
    kept = {"PIP_INDEX_URL": "https://u:p@index", "UV_INDEX_TOKEN": "t", "HTTPS_PROXY": "http://proxy:1", "CC": "gcc"}
    hidden = ("EVALYARD_HUB_TOKEN", "EVALYARD_DATABASE_URL", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN")
    for name, value in {**kept, **dict.fromkeys(hidden, "s3cret")}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(making.CannotMake):
        making.add(folder, "0.4.10", say=lambda line: None)
    seen = dict(line.partition("=")[::2] for line in told.read_text().splitlines())
    assert {name: seen.get(name) for name in kept} == kept
    assert "s3cret" not in told.read_text()
    assert seen["PATH"]
