"""Published to a folder and read back: exactly, again without change, and nothing that not everybody may see."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from orchestrator.errors import NotFound, Refused
from orchestrator.lifecycle import EvaluationState
from orchestrator.people import Visibility
from orchestrator.tables import Evaluation, Score, Submission
from submissions.context import Hub
from submissions.site import make_site
from tests.submissions.factories import DEMO, add_evaluation, choice_sample, keep_samples
from tests.submissions.publishing.conftest import board, files, publish, take


def test_what_is_published_and_imported_is_the_same_board_to_the_last_digit(
    filled: Hub, other: Hub, tmp_path: Path
) -> None:
    hide_what_is_not_public(filled)
    publish(filled, tmp_path / "out")
    done = take(other, tmp_path / "out")
    assert (done.counts["added"], done.refused, done.withdrawn) == (7, [], [])
    assert board(other) == board(filled)


def test_what_was_imported_is_published_again_with_the_same_numbers(filled: Hub, other: Hub, tmp_path: Path) -> None:
    publish(filled, tmp_path / "out")
    take(other, tmp_path / "out")
    assert publish(other, tmp_path / "nothing").boards.rows == 0
    publish(other, tmp_path / "again", imported=True)
    first, again = (rows_of(tmp_path / name) for name in ("out", "again"))
    assert all(row["origin"]["source"] == "out" for row in again.values())
    for row in (*first.values(), *again.values()):
        del row["origin"], row["evaluation"]
        for record in row["provenance"].values():
            record.pop("imported", None)
    assert again == first


def test_publishing_again_writes_nothing(filled: Hub, tmp_path: Path) -> None:
    publish(filled, tmp_path / "out", samples=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    done = publish(filled, tmp_path / "out", samples=True).published
    assert (done.written, done.deleted) == ([], [])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_one_new_result_writes_its_own_files_and_the_tables(filled: Hub, tmp_path: Path) -> None:
    publish(filled, tmp_path / "out")
    with filled.writing() as session:
        add_evaluation(session, filled.suites["demo"], model="acme/new", values=DEMO)
    done = publish(filled, tmp_path / "out").published
    assert sorted(done.written) == [
        "README.md",
        "demo/contents/contents.jsonl",
        "demo/contents/contents.parquet",
        "demo/index.html",
        "demo/index.zh.html",
        "demo/requests/acme/new_eval_request_False_bfloat16_Original.json",
        "demo/results/acme/new/results_2026-03-04T12-40-00.000000.json",
        "index.html",
        "index.zh.html",
    ]
    assert done.deleted == []


def test_nothing_but_what_everybody_may_see_is_published(filled: Hub, tmp_path: Path) -> None:
    publish(filled, tmp_path / "out", samples=True)
    everything = b"\n".join([name.encode() + content for name, content in files(tmp_path / "out").items()])
    for hidden in (b"acme/private", b"of-a-team", b"cancelled", b"/srv/models", b"engine-1"):
        assert hidden not in everything
    publish(filled, tmp_path / "team", teams=frozenset({"blue"}))
    assert "demo/results/acme/of-a-team" in "\n".join(files(tmp_path / "team"))
    assert "acme/private" not in "\n".join(files(tmp_path / "team"))


def test_what_is_no_longer_public_is_gone_with_the_next_publish_and_the_next_import(
    filled: Hub, other: Hub, tmp_path: Path
) -> None:
    publish(filled, tmp_path / "out")
    take(other, tmp_path / "out")
    with filled.writing() as session:
        for model in ("acme/first", "acme/tied"):
            row = session.exec(select(Submission).where(Submission.model == model)).one()
            row.visibility = Visibility.PRIVATE
            session.add(row)
    done = publish(filled, tmp_path / "out").published
    assert len(done.deleted) == 4
    assert not any(b"acme/first" in content for content in files(tmp_path / "out").values())
    assert take(other, tmp_path / "out").withdrawn == ["acme/first", "acme/tied"]
    assert board(other)["ranked"][0]["model"] == "acme/also-tied"
    with filled.writing() as session:
        row = session.exec(select(Submission).where(Submission.model == "acme/first")).one()
        row.visibility = Visibility.PUBLIC
        session.add(row)
    publish(filled, tmp_path / "out")
    assert take(other, tmp_path / "out").counts["changed"] == 1
    assert board(other)["ranked"][0]["model"] == "acme/first"


def test_a_publish_that_was_killed_goes_on_and_is_not_imported_before_it_is_whole(
    filled: Hub, other: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    publish(filled, whole)
    out = tmp_path / "out"
    for stop in (1, 3, 8):
        with monkeypatch.context() as patched:
            # As a machine that is switched off: after so many files nothing is written any more.
            patched.setattr(Path, "replace", stops_after(stop))
            with pytest.raises(KeyboardInterrupt):
                publish(filled, out)
        with pytest.raises(Refused, match="being published"):
            take(other, out)
    publish(filled, out)
    assert files(out) == files(whole)


def test_a_folder_of_somebody_else_is_left_alone(filled: Hub, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("years of work")
    with pytest.raises(Refused, match="not empty"):
        publish(filled, tmp_path / "theirs")
    publish(filled, tmp_path / "out")
    (tmp_path / "out" / "demo" / "note.txt").write_text("mine")
    with filled.writing() as session:
        for row in session.exec(select(Evaluation)):
            row.state = EvaluationState.CANCELLED
            session.add(row)
    publish(filled, tmp_path / "out")
    assert list(files(tmp_path / "out")) == [
        "README.md",
        "demo/note.txt",
        "evalyard.json",
        "index.html",
        "index.zh.html",
    ]


def test_no_name_leads_out_of_the_folder_or_into_the_page(filled: Hub, tmp_path: Path) -> None:
    names = ["../../etc/passwd", "..", "a/../b", "x/.git", 'acme/"><script>alert(1)', "acme/CON:1"]
    with filled.writing() as session:
        for name in names:
            add_evaluation(session, filled.suites["demo"], model=name, values=DEMO)
    done = publish(filled, tmp_path / "deep" / "out")
    assert sorted(done.boards.left_out) == ["..", "../../etc/passwd", "a/../b"]
    assert [path.name for path in tmp_path.iterdir()] == ["data", "deep"]
    page = (tmp_path / "deep" / "out" / "demo" / "index.html").read_text()
    assert "<script>alert" not in page
    assert "Content-Security-Policy" in page
    assert all(re.fullmatch(r"[A-Za-z0-9_][\w.+=@,/-]*", path) for path in files(tmp_path / "deep" / "out"))


def test_a_link_in_the_folder_is_not_followed(filled: Hub, tmp_path: Path) -> None:
    publish(filled, tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    results = tmp_path / "out" / "demo" / "results" / "acme"
    results.rename(tmp_path / "moved")
    results.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="is a link"):
        publish(filled, tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_samples_are_published_when_asked_for_but_never_confidential_ones(filled: Hub, tmp_path: Path) -> None:
    with filled.reading() as session:
        first = session.exec(select(Evaluation.id)).first()
    assert first is not None
    keep_samples(filled, first, "Letters", task="letters", records=[choice_sample(1)])
    keep_samples(filled, first, "Sums", task="sums", records=[choice_sample(2)])
    assert not any("details" in name for name in files_of(filled, tmp_path / "plain"))
    assert len([name for name in files_of(filled, tmp_path / "all", samples=True) if "details" in name]) == 2
    demo = filled.suites["demo"]
    kept = [one.model_copy(update={"confidential": one.name == "Letters"}) for one in demo.benchmarks]
    assert isinstance(filled.suites, dict)
    filled.suites["demo"] = demo.model_copy(update={"benchmarks": tuple(kept)})
    shown = [name for name in files_of(filled, tmp_path / "some", samples=True) if "details" in name]
    assert len(shown) == 1
    assert "samples_sums" in shown[0]


def test_requests_of_one_model_and_precision_do_not_overwrite_each_other(hub: Hub, tmp_path: Path) -> None:
    with hub.writing() as session:
        for number in range(3):
            add_evaluation(session, hub.suites["demo"], model="acme/m", values=DEMO, revision=f"{number}" * 40)
    publish(hub, tmp_path / "out")
    asked = sorted((tmp_path / "out" / "demo" / "requests" / "acme").iterdir())
    assert {json.loads(path.read_bytes())["revision"][0] for path in asked} == {"0", "1", "2"}
    latest = tmp_path / "out" / "demo" / "requests" / "acme" / "m_eval_request_False_bfloat16_Original.json"
    assert json.loads(latest.read_bytes())["revision"] == "2" * 40


def test_a_dry_run_writes_nothing(filled: Hub, other: Hub, tmp_path: Path) -> None:
    done = publish(filled, tmp_path / "out", check=True)
    assert done.published.written
    assert not (tmp_path / "out").exists()
    publish(filled, tmp_path / "out")
    assert take(other, tmp_path / "out", dry_run=True).counts["added"] == 7
    with other.reading() as session:
        assert session.exec(select(Evaluation)).all() == []


def test_an_import_twice_is_an_import_once(filled: Hub, other: Hub, tmp_path: Path) -> None:
    publish(filled, tmp_path / "out")
    take(other, tmp_path / "out")
    with other.reading() as session:
        scores = len(session.exec(select(Score)).all())
    assert dict(take(other, tmp_path / "out").counts) == {"unchanged": 7}
    with other.reading() as session:
        assert len(session.exec(select(Score)).all()) == scores


def test_a_number_that_changed_there_changes_here_and_nothing_else(filled: Hub, other: Hub, tmp_path: Path) -> None:
    publish(filled, tmp_path / "out")
    take(other, tmp_path / "out")
    with filled.writing() as session:
        row = session.exec(select(Score).where(Score.task == "", Score.metric == "value")).first()
        assert row is not None
        row.stderr = 0.25
        session.add(row)
    publish(filled, tmp_path / "out")
    assert dict(take(other, tmp_path / "out").counts) == {"unchanged": 6, "changed": 1}
    hide_what_is_not_public(filled)
    assert board(other) == board(filled)


def test_a_suite_that_is_another_one_here_is_refused_by_name(filled: Hub, other: Hub, tmp_path: Path) -> None:
    publish(filled, tmp_path / "out")
    assert isinstance(other.suites, dict)
    demo = other.suites["demo"]
    other.suites["demo"] = demo.model_copy(update={"harness": "lm_eval 0.1"})
    with pytest.raises(NotFound, match="another one there"):
        take(other, tmp_path / "out")
    del other.suites["demo"]
    with pytest.raises(NotFound, match="There is no suite 'demo'"):
        take(other, tmp_path / "out")


BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"average": 100.5}, "average"),
    ({"average": 12.0}, "does not follow"),
    ({"model": "../x"}, "no name of a model"),
    ({"model": "acme/\u202egnp"}, "cannot be shown"),
    ({"parameters": -1}, "parameters"),
    ({"ended_at": "9999-01-01T00:00:00Z"}, "that year"),
    ({"flags": [{"kind": "x", "reason": "y", "link": "javascript:alert(1)"}]}, "no web address"),
    ({"surprise": 1}, "surprise"),
    ({"precision": "int3"}, "precision"),
    ({"provenance": {"Letters": {"deep": "x" * (2 << 20)}}}, "1 MiB"),
    ({"scores": []}, "scores"),
    ({"average": float("nan")}, "average"),
    ({"missing": [{"benchmark": "Other"}]}, "no benchmark Other"),
]
BAD_FILES = [b"{", b"[" * 100_000, b"\xff\xfe", b"null", b"[]", b'{"evalyard": []}']


def test_rows_that_cannot_stand_are_refused_with_the_reason_and_the_others_are_taken(
    hub: Hub, other: Hub, tmp_path: Path
) -> None:
    out, many = tmp_path / "out", len(BAD_ROWS) + len(BAD_FILES)
    with hub.writing() as session:
        for number in range(many + 1):
            add_evaluation(session, hub.suites["demo"], model=f"acme/m{number}", values=DEMO)
    publish(hub, out)
    found = [next((out / "demo" / "results" / "acme" / f"m{number}").iterdir()) for number in range(many)]
    for path, (change, _) in zip(found, BAD_ROWS, strict=False):
        record = json.loads(path.read_bytes())
        record["evalyard"]["row"] |= change
        forge(out, path, json.dumps(record).encode())
    for path, content in zip(found[len(BAD_ROWS) :], BAD_FILES, strict=True):
        forge(out, path, content)
    done = take(other, out)
    assert (done.counts["added"], len(done.refused)) == (1, many)
    reasons = {refusal.what.split("/")[3]: refusal.reason for refusal in done.refused}
    for number, (_, reason) in enumerate(BAD_ROWS):
        assert reason in reasons[f"m{number}"], number


def test_what_a_source_says_of_its_making_becomes_no_command_and_breaks_no_page(
    filled: Hub, other: Hub, tmp_path: Path
) -> None:
    publish(filled, tmp_path / "out")
    path = next((tmp_path / "out" / "demo" / "results" / "acme" / "first").iterdir())
    record = json.loads(path.read_bytes())
    deep: Any = "end"
    for _ in range(60):
        deep = {"deeper": [deep]}
    said = {"lm_eval": "1; touch /tmp/evil", "seeds": {"random": "x"}, "carried": "y", "tasks": deep}
    for place, score in enumerate((said, "text", None)):
        made = record["evalyard"]["row"]["provenance"][list(DEMO)[place]]
        made |= {"score": score, "identity": "none", "engine_version": ["1"], **said}
    forge(tmp_path / "out", path, json.dumps(record).encode())
    done = take(other, tmp_path / "out")
    assert (done.counts["added"], done.refused) == (7, [])
    with TestClient(make_site(other), base_url="http://127.0.0.1:8765") as client:
        found = client.get("/api/v1/board?suite=demo").json()["ranked"][0]["evaluation"]
        script = client.get(f"/api/v1/evaluations/{found}/reproduce").json()["script"]
        assert client.get(f"/evaluations/{found}").status_code == 200
    assert "evil" not in script
    assert "imported" in script


@pytest.mark.parametrize("cost", [{"device_seconds": 10**400}, {"seconds": 1e-300, "tokens_computed": 1e14}])
def test_no_amount_of_a_source_takes_the_board_down(
    filled: Hub, other: Hub, tmp_path: Path, cost: dict[str, Any]
) -> None:
    publish(filled, tmp_path / "out")
    path = next((tmp_path / "out" / "demo" / "results" / "acme" / "first").iterdir())
    record = json.loads(path.read_bytes())
    for made in record["evalyard"]["row"]["provenance"].values():
        made["infer"] = {"engine": "x", "cost": cost}
    forge(tmp_path / "out", path, json.dumps(record).encode())
    assert take(other, tmp_path / "out").counts["added"] == 7
    with TestClient(make_site(other), base_url="http://127.0.0.1:8765") as client:
        for address in ("/?suite=demo", "/api/v1/board?suite=demo", "/api/v1/board?suite=demo&format=csv"):
            assert client.get(address).status_code == 200
    assert publish(other, tmp_path / "again", imported=True).boards.rows == 7


def test_a_board_from_which_everything_was_withdrawn_takes_everything_back(
    filled: Hub, other: Hub, tmp_path: Path
) -> None:
    publish(filled, tmp_path / "out")
    take(other, tmp_path / "out")
    with filled.writing() as session:
        for row in session.exec(select(Evaluation)):
            row.state = EvaluationState.CANCELLED
            session.add(row)
    publish(filled, tmp_path / "out")
    assert len(take(other, tmp_path / "out").withdrawn) == 7
    assert board(other)["ranked"] == []


def test_a_file_that_is_not_the_manifests_is_refused_and_nothing_is_taken_back(
    filled: Hub, other: Hub, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    publish(filled, out)
    take(other, out)
    path = next((out / "demo" / "results" / "acme" / "first").iterdir())
    path.write_bytes(path.read_bytes().replace(b"71.", b"99."))
    done = take(other, out)
    assert "damaged" in done.refused[0].reason
    assert done.withdrawn == []
    assert done.withholds


def hide_what_is_not_public(hub: Hub) -> None:
    """Take from the hub's own board what nobody else may see, so that it can be compared with the published one."""
    with hub.writing() as session:
        for row in session.exec(select(Submission).where(Submission.visibility != Visibility.PUBLIC)):
            found = session.exec(select(Evaluation).where(Evaluation.submission_id == row.id)).one()
            found.state = EvaluationState.CANCELLED
            session.add(found)
    hub.boards._living.clear()


def files_of(hub: Hub, folder: Path, **choices: Any) -> list[str]:
    publish(hub, folder, **choices)
    return list(files(folder))


def rows_of(folder: Path) -> dict[str, Any]:
    found = [json.loads(path.read_bytes())["evalyard"]["row"] for path in folder.rglob("results_*.json")]
    return {row["model"]: row for row in found}


def forge(out: Path, path: Path, content: bytes) -> None:
    """Put other bytes into a published board, as somebody would who wants them to be believed."""
    path.write_bytes(content)
    manifest = json.loads((out / "evalyard.json").read_bytes())
    told = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    manifest["files"][path.relative_to(out).as_posix()] = told
    (out / "evalyard.json").write_text(json.dumps(manifest))


def stops_after(writes: int) -> Any:
    left, replace = [writes], Path.replace

    def stopping(self: Path, target: Path) -> Path:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return replace(self, target)

    return stopping
