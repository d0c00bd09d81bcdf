"""Every bad input in one list, through the real command: a sentence with the next step, an exit code, and no trace.

The details of each are proved where they belong (`test_checks`, `test_intake`, `tests/flow/test_system`).
"""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import text

from orchestrator import db
from submissions.context import Hub
from tests.hub_stub import HubStub
from tests.submissions.command import Command
from tests.submissions.conftest import closed_url
from tests.submissions.factories import rows
from tests.submissions.models import edit


class Bad(NamedTuple):
    """A submission of `MODEL`, spoiled, that must be refused."""

    words: tuple[str, ...]
    """Of the command after `submit`; MODEL stands for the folder."""
    says: str
    next_step: str
    spoil: Callable[[Path], object] = lambda folder: None


def needs_code(folder: Path) -> None:
    edit(folder / "config.json", model_type="own", auto_map={"AutoModelForCausalLM": "own.Model"})
    (folder / "own.py").write_text("raise SystemExit('this ran')")


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


BAD = {
    "no such model": Bad(("acme/none",), "There is no model acme/none on the Hub", "Check the spelling"),
    "no such revision": Bad(("acme/tiny", "--revision", "v2"), "has no revision 'v2'", "Use a branch, tag or commit"),
    "a gated model": Bad(("acme/gated",), "Model acme/gated is gated", "EVALYARD_HUB_TOKEN"),
    "no such folder": Bad(("/nowhere/at/all",), "There is no folder /nowhere/at/all", "Check the path"),
    "a path that no system takes": Bad(("/" + "a" * 900,), "cannot be read (File name too long)", "Check path"),
    "a folder's revision": Bad(("MODEL", "--revision", "v2"), "has no revision 'v2'", "Leave the revision out"),
    "a folder without config": Bad(
        ("MODEL",), "has no config.json", "Add it", lambda folder: (folder / "config.json").unlink()
    ),
    "a config that is no JSON": Bad(
        ("MODEL",), "config.json is not valid JSON", "Mend it", lambda folder: (folder / "config.json").write_text("{")
    ),
    "no weights": Bad(
        ("MODEL",), "has no safetensors weights", "Upload them", lambda folder: (folder / "model.safetensors").unlink()
    ),
    "pickled weights only": Bad(("MODEL",), "pickle files (.bin) only", "Convert them to safetensors", as_pickle),
    "damaged weights": Bad(
        ("MODEL",),
        "is not a safetensors file",
        "Upload the weights again",
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64),
    ),
    "the model's own code": Bad(("MODEL",), "runs no code of a model", "Submit a version", needs_code),
    "no tokenizer": Bad(("MODEL",), "has no tokenizer files", "Add them", without_tokenizer),
    "a wrong precision": Bad(("MODEL", "--precision", "gptq"), "are not GPTQ", "Choose precision 'auto'"),
    "no chat template": Bad(("MODEL", "--chat-template"), "has no chat template", "--no-chat-template"),
    "no such suite": Bad(("MODEL", "--suite", "dmeo"), "There is no suite 'dmeo'", "Did you mean 'demo'?"),
    "a name that writes to the terminal": Bad(("MODEL/x\x1b]0;y\x07",), "There is no folder", "Check the path"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_submission_gets_a_sentence_and_leaves_no_trace(
    bad: Bad,
    hub: Hub,
    hf_hub: HubStub,
    evalyard: Command,  # the fixture
    model: Path,
    tiny_model: Path,
) -> None:
    hf_hub.add("acme/tiny", tiny_model)
    hf_hub.add("acme/gated", tiny_model)
    hf_hub.gated.add("acme/gated")
    bad.spoil(model)
    ran = evalyard("submit", "--suite", "demo", *(word.replace("MODEL", str(model)) for word in bad.words))
    assert (ran.code, ran.out) == (1, "")
    assert bad.says in ran.err
    assert bad.next_step in ran.err
    assert "\x1b]" not in ran.err
    assert rows(hub) == [0, 0, 0, 0]


def test_a_hub_that_is_away_is_said_and_leaves_no_trace(
    hub: Hub,
    hf_hub: HubStub,
    evalyard: Command,  # the fixture
) -> None:
    hf_hub.status = 500
    ran = evalyard("submit", "acme/tiny", "--suite", "demo")
    assert (ran.code, ran.out) == (1, "")
    assert "The Hub is in trouble (500)" in ran.err
    assert "try again in a few minutes" in ran.err
    assert rows(hub) == [0, 0, 0, 0]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """The command where no server runs, with a data folder of its own."""
    monkeypatch.setenv("EVALYARD_URL", closed_url())
    monkeypatch.setenv("EVALYARD_ENGINE", "scripted")
    monkeypatch.setenv("EVALYARD_DATA", str(tmp_path / "data"))
    return Command(capsys)


SUITE = """
name = "mine"
version = "1"
title = "Mine"
harness = "lm_eval 0.4.13"
"""
BENCHMARK = """
[[benchmarks]]
name = "{name}"
tasks = ["{task}"]
[[benchmarks.parts]]
task = "{task}"
metric = "acc"
"""


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A team's folder of suites."""
    folder = tmp_path / "suites"
    folder.mkdir()
    monkeypatch.setenv("EVALYARD_SUITES", str(folder))
    return folder


def test_a_suite_file_with_an_unknown_key_stops_the_start(alone: Command, suites: Path, tmp_path: Path) -> None:
    (suites / "mine.toml").write_text(SUITE + 'benchmark = "x"\n' + BENCHMARK.format(name="A", task="demo_letters"))
    ran = alone("up", "--port", "0")
    assert (ran.code, ran.out) == (1, "")
    assert "The key 'benchmark' is not known. Did you mean 'benchmarks'?" in ran.err
    assert "mine.toml" in ran.err
    assert not (tmp_path / "data").exists()


def test_a_port_in_use_is_refused(alone: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = alone("up", "--port", str(taken.getsockname()[1]))
    assert (ran.code, ran.out) == (1, "")
    assert "choose another with --port" in ran.err


def test_a_database_of_a_newer_schema_is_refused_and_left_alone(alone: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    engine = db.make_engine(f"sqlite:///{tmp_path / 'data' / 'evalyard.db'}")
    db.migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    ran = alone("up", "--port", "0")
    assert (ran.code, ran.out) == (1, "")
    assert "was made by a newer Evalyard (schema 9999). Upgrade this Evalyard" in ran.err
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["9999"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("up", "--port", "0", "--data", "FILE/data"), "FILE/data cannot be written"),
        (("backup", "BACKUP", "--data", "FILE/data"), "There is nothing to back up in FILE/data"),
        (("backup", "FILE"), "FILE cannot be used (Not a directory)"),
        (("backup", "FILE/x"), "There is nothing to back up"),
        (("restore", "FILE"), "cannot be used (Not a directory)"),
        (("restore", "NOWHERE"), "is no complete backup"),
        (("evaluate", "MODEL", "--tasks", "demo_letters", "--output", "FILE/x"), "cannot be used (Not a directory)"),
        (("evaluate", "MODEL", "--suite", "dmeo"), "Did you mean 'demo'?"),
        (("evaluate", "/nowhere/at/all", "--suite", "demo"), "There is no folder"),
    ],
)
def test_what_cannot_be_read_or_written_is_named(
    words: tuple[str, ...], says: str, alone: Command, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    places = {"FILE": tmp_path / "file", "MODEL": model, "NOWHERE": tmp_path / "nowhere", "BACKUP": tmp_path / "backup"}

    def filled(word: str) -> str:
        for name, place in places.items():
            word = word.replace(name, str(place))
        return word

    ran = alone(*map(filled, words))
    assert (ran.code, ran.out) == (1, "")
    assert filled(says) in ran.err.replace("\n", " ")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_missing_dataset_fails_its_benchmark_alone_and_there_is_no_average(
    alone: Command, suites: Path, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("EVALYARD_DATASETS", str(tmp_path / "mirror"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (suites / "tasks").mkdir()
    missing = {"task": "t_missing", "dataset_path": "acme/missing", "output_type": "multiple_choice"}
    missing |= {"test_split": "test", "doc_to_text": "{{q}}", "doc_to_choice": ["a", "b"], "doc_to_target": 0}
    (suites / "tasks" / "missing.yaml").write_text(json.dumps(missing))
    (suites / "mine.toml").write_text(
        SUITE + BENCHMARK.format(name="Here", task="demo_letters") + BENCHMARK.format(name="Gone", task="t_missing")
    )
    shutil.copytree(model, tmp_path / "copy")
    ran = alone("evaluate", str(tmp_path / "copy"), "--suite", "mine", "--limit", "3", "--json")
    assert ran.code == 1
    assert ran.json["average"] is None
    assert list(ran.json["values"]) == ["Here"]
    failures = {one["benchmark"]: (one["failure"], one["sentence"]) for one in ran.json["benchmarks"]}
    assert failures["Here"] == (None, "")
    assert failures["Gone"][0] == "dataset"
    assert "put it into the mirror" in failures["Gone"][1]
