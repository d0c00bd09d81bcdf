"""What the set-up looks for before it downloads anything."""

import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

from deploy import environment
from deploy.environment import Environment, Missing, compiler_found, require


def test_a_compiler_is_found_on_the_path_or_where_cc_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert compiler_found()[0] == ""
    for name in ("gcc", "mycc"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert compiler_found()[0] == str(tmp_path / "gcc")
    monkeypatch.setenv("CC", "mycc")
    assert compiler_found()[0] == str(tmp_path / "mycc")


def test_the_header_files_are_those_of_this_python() -> None:
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    assert compiler_found()[1] == (str(header) if header.is_file() else "")


def test_what_is_lacking_is_said_with_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Missing, match=r"lacks a C compiler: found none\. Install gcc\."):
        require("a C compiler", "none", False, "Install gcc.")
    assert "--  a C compiler (none)" in capsys.readouterr().out
    assert set(environment.NEEDS) == {"cpu", "cuda"}


def test_what_the_commands_import_is_compiled_whatever_the_shell_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "begins.py").write_text("import imported\n")
    (tmp_path / "imported.py").write_text("")
    made = Environment(tmp_path, "cpu")
    made.python = Path(sys.executable)
    made.compile(["begins"])
    assert {path.name.partition(".")[0] for path in (tmp_path / "__pycache__").iterdir()} == {"begins", "imported"}
    with pytest.raises(Missing, match=r"does not start in it: ModuleNotFoundError: No module named 'absent'"):
        made.compile(["absent"])


def test_what_is_compiled_can_be_imported() -> None:
    for name in environment.PROCESSES:
        assert find_spec(name) is not None, name
