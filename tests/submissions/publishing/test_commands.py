"""`evalyard publish` and `evalyard import` as a stranger types them, and what readers then see of imported rows."""

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from submissions.context import Hub
from submissions.site import make_site
from tests.submissions.command import Command
from tests.submissions.factories import DEMO, add_evaluation
from tests.submissions.publishing.conftest import publish, take


@pytest.fixture
def evalyard(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.setenv("EVALYARD_DATA", str(tmp_path / "data"))
    return Command(capsys)


def test_publish_and_import_say_what_they_did_and_end_as_scripts_expect(
    evalyard: Command, filled: Hub, other: Hub, tmp_path: Path
) -> None:
    out, data = str(tmp_path / "out"), str(other.settings.data)
    would = evalyard("publish", out, "--dry-run")
    assert (would.code, "would be written" in would.out, Path(out).exists()) == (0, True, False)
    first = evalyard("publish", out)
    assert (first.code, "7 rows" in first.out, "import" in first.err) == (0, True, True)
    assert "Nothing has changed" in evalyard("publish", out).out
    assert evalyard("publish", out, "--json").json["written"] == []
    back = evalyard("import", out, "--dry-run")
    assert ("0 would be added" in back.out, "7 rows of it are evaluated here" in back.err) == (True, True)
    taken = evalyard("import", out, "--data", data)
    assert ("7 added" in taken.out, "Read as what `evalyard publish` wrote." in taken.err) == (True, True)
    assert evalyard("import", out, "--data", data, "--dry-run").out.count("7 unchanged") == 1
    again = evalyard("import", out, "--data", data, "--json")
    assert (again.code, again.json["unchanged"], again.json["refused"]) == (0, 7, [])
    rows = tmp_path / "contents.jsonl"
    rows.write_text(json.dumps({"fullname": "a/b\x1b[31m", "Precision": "?", "Average ⬆️": 1.0}) + "\n")
    refused = evalyard("import", str(rows), "--data", data, "--suite", "open-llm-v1")
    assert (refused.code, "1 refused" in refused.out) == (1, True)
    assert "no precision" in refused.err
    assert "\x1b[31m" not in refused.err
    (Path(out) / "evalyard.json").unlink()
    for more in (("--dry-run", "--suite", "demo"), ("--suite", "demo")):
        assert "results files of lm-eval, as no evalyard.json" in evalyard("import", out, "--data", data, *more).err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("publish", "hf://datasets/acme/board"), "EVALYARD_PUBLISH_TOKEN"),
        (("publish", "s3://bucket"), "no place to publish to"),
        (("publish", "out", "--suite", "demmo"), "Did you mean 'demo'?"),
        (("publish", "out", "--data", "nowhere"), "There is nothing to publish in"),
        (("import", "nowhere"), "There is no"),
        (("import", "."), "No published board was found"),
    ],
)
def test_a_mistake_is_a_sentence(
    evalyard: Command, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ran = evalyard(*words)
    assert (ran.code, ran.out) == (1, "")
    assert sentence in " ".join(ran.err.split())


def test_readers_see_which_rows_were_imported_and_can_leave_them_out(
    evalyard: Command, filled: Hub, other: Hub, tmp_path: Path
) -> None:
    evalyard("publish", str(tmp_path / "out"))
    evalyard("import", str(tmp_path / "out"), "--data", str(other.settings.data))
    with TestClient(make_site(other), base_url="http://127.0.0.1:8765") as client:
        ranked = client.get("/api/v1/board?suite=demo").json()["ranked"]
        assert {row["imported_from"] for row in ranked} == {"out"}
        assert client.get("/api/v1/board?suite=demo&hide=imported").json()["ranked"] == []
        assert "source" in client.get("/api/v1/board?suite=demo&format=csv").text.splitlines()[0]
        page = client.get("/?suite=demo").text
        assert ">imported</a>" in page
        assert str(tmp_path) not in page
        detail = client.get(f"/evaluations/{ranked[0]['evaluation']}").text
        assert "these numbers were not made here" in detail
        assert "Retry" not in detail


def test_the_status_of_an_imported_row_says_that_it_was_not_made_here(
    evalyard: Command, hub: Hub, server: str, other: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALYARD_URL", server)
    with other.writing() as session:
        add_evaluation(session, other.suites["demo"], model="acme/elsewhere", values=DEMO)
    publish(other, tmp_path / "out")
    take(hub, tmp_path / "out")
    said = evalyard("status", "1").out.splitlines()
    assert said[2].startswith("Imported from out, read ")
    assert said[2].endswith(": these numbers were not made here.")
