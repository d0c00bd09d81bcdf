"""The command line where no hub is needed or none is there: help, misuse, and what to do first."""

import re
from pathlib import Path

import pytest
import typer

from orchestrator.program import program
from submissions.cli import Program, make_app
from submissions.cli.client import Client, ServerAway
from tests.submissions.command import Command


@pytest.mark.parametrize(
    "words",
    [
        ("submit",),
        ("submit", "x", "--precision", "int3"),
        ("submit", "x", "--type", "nice"),
        ("submit", "x", "--limit", "0"),
        ("submit", "x", "--no-such-option"),
        ("status", "one"),
        ("status", "--follow"),
        ("board", "--json", "--csv"),
        ("retry",),
        ("nonsense",),
        ("up", "--engine", "steam"),
        ("up", "--port", "99999"),
    ],
)
def test_misuse_is_exit_code_2_on_stderr(alone: Command, words: tuple[str, ...]) -> None:
    ran = alone(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err
    assert "Value error" not in ran.err


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("fp16", "float16"), ("BF16", "bfloat16"), ("fp32", "float32"), ("int8", "8bit"), ("gtpq", "gptq")],
)
def test_a_precision_by_another_name_is_refused_with_ours(asked: str, meant: str, alone: Command) -> None:
    said = " ".join(alone("submit", "x", "--precision", asked).err.replace("│", " ").split())
    assert f"Did you mean '{meant}'?" in said


def test_a_limit_of_nothing_says_what_a_limit_is(alone: Command) -> None:
    for command in ("submit", "evaluate"):
        said = " ".join(alone(command, "x", "--limit", "0").err.split())
        assert (
            "0 is too small; the least is 1. Take at least 1 document for each task, or leave it out for all." in said
        )


def test_a_number_that_is_none_is_told_in_our_words(alone: Command) -> None:
    for words in (("cancel", "x"), ("status", "x"), ("submit", "m", "--limit", "x"), ("evaluate", "m", "--limit", "x")):
        ran = alone(*words)
        assert ran.code == 2
        assert "'x' is no whole number." in ran.err
    ran = alone("up", "--port", "70000")
    assert ran.code == 2
    assert "70000 is too large; the most is 65535. Give a port such as 8765, or 0 for any that is free." in ran.err


def test_a_path_that_is_none_or_of_the_wrong_kind_is_told_with_what_to_give(alone: Command, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for words in (("up", "--data", str(file)), ("publish", "x", "--data", str(file))):
        ran = alone(*words)
        assert (ran.code, f"{file} is a file. Give a folder;" in ran.err) == (2, True)
    ran = alone("batch", "nowhere.txt")
    assert (ran.code, "There is no nowhere.txt, seen from" in ran.err, "Give its whole path" in ran.err) == (
        2,
        True,
        True,
    )


@pytest.mark.parametrize("words", [("board",), ("queue",), ("status",), ("submit", "org/name"), ("retry", "1")])
def test_without_a_server_the_sentence_says_how_to_start_it(
    alone: Command, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no demo has left its data
    ran = alone(*words)
    assert (ran.code, ran.out) == (1, "")
    assert f"Start it: {program()} up." in ran.err


def test_help_teaches_with_examples_and_lists_every_command(alone: Command) -> None:
    listed = alone("--help").out
    for name in ("up", "submit", "status", "queue", "board", "suites", "retry", "cancel", "reproduce", "evaluate"):
        assert f"\n  {name} " in listed
    assert "evalyard submit ./my-model --suite demo --wait" in alone("submit", "--help").out


def test_help_lists_each_command_once_under_what_it_is_for_and_cuts_no_sentence(alone: Command) -> None:
    under = [name for names in Program.titles.values() for name in names]
    every = typer.main.get_command(make_app()).commands  # type: ignore[attr-defined]
    assert sorted(under) == sorted(every)
    for listed in (alone("--help").out, alone("rerun", "--help").out, alone("harness", "--help").out):
        assert "..." not in listed.replace("COMMAND [ARGS]...", "")


def test_the_version_is_told(alone: Command) -> None:
    ran = alone("--version")
    assert ran.code == 0
    assert re.match(r"evalyard (\d|\()", ran.out)


def test_backup_of_a_folder_without_a_system_is_refused(alone: Command, tmp_path: Path) -> None:
    ran = alone("backup", str(tmp_path / "copy"), "--data", str(tmp_path / "data"))
    assert ran.code == 1
    assert "There is nothing to back up in" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_the_data_folder_of_the_demo_is_named_where_it_lies_in_this_folder(
    alone: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".evalyard").mkdir()
    (tmp_path / ".evalyard" / "evalyard.db").touch()
    monkeypatch.chdir(tmp_path)
    refused = alone("publish", "out", "--data", str(tmp_path / "data")).err
    assert "`--data .evalyard` is the one in this folder." in " ".join(refused.split())
    with pytest.raises(ServerAway, match=r"Start it: \S+ up --data \.evalyard\."):
        Client("http://127.0.0.1:9", token="").get("/health", timeout=5)
