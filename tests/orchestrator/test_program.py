"""Hints name a command that works where they are read."""

import sys
from pathlib import Path

import pytest

from orchestrator.program import as_typed, default_data, program, program_for
from orchestrator.settings import read_settings
from orchestrator.system import welcome


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a virtual environment's programs, in a checkout that is the present folder."""
    programs = tmp_path / "checkout" / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "evalyard"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path / "checkout")
    return programs


def test_a_program_that_is_not_on_path_is_named_by_its_path(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program() == ".venv/bin/evalyard"
    monkeypatch.chdir(environment)
    assert program() == "./evalyard"
    monkeypatch.chdir(tmp_path / "checkout" / ".venv" / "bin" / "..")
    assert program() == "bin/evalyard"
    (tmp_path / "else where").mkdir()
    moved = environment.rename(tmp_path / "else where" / "bin")
    monkeypatch.setattr(sys, "executable", str(moved / "python"))
    assert program() == f"'{moved}/evalyard'"


def test_a_program_on_path_is_called_by_its_name(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{environment}:/bin")
    assert program() == "evalyard"


def test_another_evalyard_on_path_is_not_taken_for_this_one(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evalyard").write_text("#!/bin/sh\n")
    (tmp_path / "evalyard").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == ".venv/bin/evalyard"


def test_where_nothing_is_installed_the_module_is_called(environment: Path) -> None:
    (environment / "evalyard").unlink()
    assert program() == ".venv/bin/python -m submissions.cli"


def test_another_terminal_is_told_an_address_that_it_would_not_find(environment: Path, tmp_path: Path) -> None:
    elsewhere = "http://127.0.0.1:9000"
    assert program_for("http://127.0.0.1:8765", tmp_path) == ".venv/bin/evalyard"
    assert program_for(elsewhere, default_data()) == ".venv/bin/evalyard"
    assert program_for(elsewhere, tmp_path) == f"EVALYARD_URL={elsewhere} .venv/bin/evalyard"


def test_the_welcome_ends_with_a_command_that_can_be_pasted(environment: Path, tmp_path: Path) -> None:
    last = welcome("http://127.0.0.1:8765", tmp_path)[-1]
    assert last.strip() == ".venv/bin/evalyard submit org/name --suite open-llm-v1 --limit 20 --wait"


def test_a_folder_is_told_from_here_where_it_lies_here_and_from_the_root_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert as_typed(Path("../here/results")) == "results"
    assert as_typed(tmp_path / "here" / "a b") == "'a b'"
    assert as_typed(Path("../else/where")) == f"{tmp_path}/else/where"
    assert as_typed(Path("..")) == str(tmp_path)
    assert as_typed(Path()) == "."


def test_the_data_folder_is_told_without_detours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    settings = read_settings(data=Path("../data"))
    assert (settings.data, settings.database_url) == (tmp_path / "data", f"sqlite:///{tmp_path}/data/evalyard.db")
