"""The command line against a real server: answers on stdout, chatter on stderr, exit codes, and never a traceback."""

import csv
import io
import re
import socket
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator import jobs, narrator
from orchestrator.lifecycle import EvaluationState
from orchestrator.program import program
from orchestrator.tables import Evaluation
from orchestrator.wire import EngineFamily, FailureKind
from submissions.cli.client import Client, ServerAway, hub_url
from submissions.context import Hub
from tests.submissions.command import Command, Ran
from tests.submissions.factories import DEMO, add_evaluation, disturb


def test_submit_says_what_happened_and_the_next_command(evalyard: Command, model: Path) -> None:
    ran = evalyard("submit", str(model), "--suite", "demo", "--type", "chat", "--no-chat-template")
    assert ran == Ran(0, "Queued evaluation 1.\n", f"Follow it: {program()} status 1 --follow\n")
    again = evalyard("submit", str(model), "--suite", "demo")
    assert (again.code, again.out) == (0, "Evaluation 1 is the same and is queued.\n")


def test_a_relative_folder_is_sent_as_an_absolute_path(
    evalyard: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    ran = evalyard("submit", "./tiny", "--suite", "demo", "--json")
    assert ran.json["evaluation"]["model"] == "tiny"
    assert evalyard("status", "1", "--json").json["folder"] == str(model)
    assert "Taking the folder" in evalyard("submit", "tiny", "--suite", "demo").err


@pytest.mark.parametrize("name", ["models/new/tiny", ".tiny", "tiny/", "../tiny", "./a/b", "~nobody-here/tiny"])
def test_what_can_be_no_hub_id_is_a_path_and_a_mistyped_one_is_called_so(name: str, evalyard: Command) -> None:
    ran = evalyard("submit", name, "--suite", "demo")
    assert ran.code == 1
    assert "There is no folder /" in ran.err
    assert "Check the path." in ran.err


def test_a_server_that_says_nothing_is_told_from_one_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServerAway, match=r"did not answer within 0\.1 s"):
            Client(address, token="").get("/health", timeout=0.1)
    with pytest.raises(ServerAway, match=r"No Evalyard answers at .* Start it"):
        Client(address, token="").get("/health", timeout=5)


def test_a_web_address_is_not_taken_for_a_path(evalyard: Command) -> None:
    assert "neither a Hub id nor the absolute path" in evalyard("submit", "https://hub.example/acme/tiny").err


def test_only_a_name_that_could_be_a_hub_id_is_told_to_be_a_folder(
    evalyard: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parents[1])
    told = {name: "Taking the folder" in evalyard("submit", name, "--suite", "demo").err for name in FOLDERS}
    assert told == FOLDERS


FOLDERS = {"models/tiny": True, "models/tiny/": False, "./models/tiny": False, "models/../models/tiny": False}
"""Ways to write one folder, and whether it needs saying that a folder is meant."""


def test_a_refused_submission_is_exit_code_1_with_every_sentence_on_stderr(evalyard: Command, model: Path) -> None:
    (model / "tokenizer.json").unlink()
    ran = evalyard("submit", str(model), "--suite", "dmo")
    assert (ran.code, ran.out) == (1, "")
    assert "Not submitted, for 2 reasons" in ran.err
    assert "Did you mean 'demo'?" in ran.err
    assert "has no tokenizer files" in ran.err
    as_json = evalyard("submit", str(model), "--suite", "dmo", "--json")
    assert as_json.code == 1
    assert [fault["field"] for fault in as_json.json["faults"]] == ["suite", "model"]


def test_a_backup_says_which_files_of_the_data_folder_are_not_in_it(
    evalyard: Command, hub: Hub, tmp_path: Path
) -> None:
    (hub.settings.data / "notifications.toml").touch()
    ran = evalyard("backup", str(tmp_path / "copy"), "--data", str(hub.settings.data))
    assert (ran.code, "notifications.toml. Keep copies of them elsewhere." in ran.err) == (0, True)


def test_something_else_at_the_address_is_named(
    evalyard: Command, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setenv("EVALYARD_URL", f"{server}/static")
    assert "is not an Evalyard" in evalyard("queue").err
    monkeypatch.setenv("EVALYARD_URL", "localhost")
    assert "which is no address" in evalyard("queue").err


def test_the_address_is_the_one_that_a_running_system_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVALYARD_URL", raising=False)
    monkeypatch.setenv("EVALYARD_DATA", str(tmp_path))
    assert hub_url() == "http://127.0.0.1:8765"
    (tmp_path / "url").write_text("http://127.0.0.1:9000\n")
    assert hub_url() == "http://127.0.0.1:9000"
    monkeypatch.setenv("EVALYARD_URL", "http://there/")
    assert hub_url() == "http://there"


def test_wait_ends_with_the_evaluation(hub: Hub, evalyard: Command, model: Path) -> None:
    """Another thread finishes the evaluation once the command has queued it."""

    def finish() -> None:
        while True:
            with hub.writing() as session:
                row = session.get(Evaluation, 1)
                if row is not None:
                    row.state, row.average = EvaluationState.FINISHED, 61.5
                    return

    thread = threading.Thread(target=finish)
    thread.start()
    ran = evalyard("submit", str(model), "--suite", "demo", "--wait")
    thread.join()
    finished = "Finished evaluation 1: average 61.50. The scripted engine made its answers up: it is never ranked.\n"
    assert (ran.code, ran.out) == (0, finished)
    assert "1 tiny: finished" in ran.err


def test_waiting_for_what_has_failed_is_exit_code_1(hub: Hub, evalyard: Command) -> None:
    with hub.writing() as session:
        add_evaluation(
            session,
            hub.suites["demo"],
            state=EvaluationState.FAILED,
            failure=FailureKind.WEIGHTS,
            sentence="A file is damaged.",
        )
    ran = evalyard("status", "1", "--follow")
    assert ran.code == 1
    assert "Evaluation 1 failed: A file is damaged. Upload complete safetensors" in ran.out
    assert evalyard("status", "1", "--follow", "--json").json["failure"] == "weights"


def test_a_finished_evaluation_that_lacks_a_benchmark_is_exit_code_1(hub: Hub, evalyard: Command) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values={"Letters": 1.0}, sentence="No score for Sums.")
    ran = evalyard("status", "1", "--follow")
    assert ran.code == 1
    assert "Finished evaluation 1 without an average. No score for Sums." in ran.out


def test_status_lists_and_shows(hub: Hub, evalyard: Command) -> None:
    assert "Nothing has been submitted yet" in evalyard("status").out
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
        add_evaluation(session, hub.suites["demo"], model="acme/two", state=EvaluationState.RUNNING, requests=(1, 4))
        add_evaluation(session, hub.suites["demo"], model="acme/three", state=EvaluationState.RUNNING, waits=True)
    listed = evalyard("status").out
    assert listed.index("acme/two") < listed.index("acme/model-1b")
    assert "1 of 4 requests answered" in listed
    waiting = next(line for line in listed.splitlines() if "acme/three" in line)
    assert re.search(r"demo +waiting +– +No vllm engine worker is connected", waiting)
    third = evalyard("status", "3").out
    assert "waiting: No vllm engine worker is connected" in third
    assert re.search(r"Letters +waiting +–", third)
    assert re.search(r"acme/three +demo +waiting", evalyard("queue").out)
    detail = evalyard("status", "1")
    assert (detail.code, "Finished evaluation 1: average 60.00." in detail.out) == (0, True)
    assert "/evaluations/1" in detail.err
    assert evalyard("status", "1", "--json").json["average"] == 60.0
    assert [row["id"] for row in evalyard("status", "--json").json["evaluations"]] == [3, 2, 1]


def test_status_says_what_was_tried_before(hub: Hub, evalyard: Command) -> None:
    with hub.writing() as session:
        disturb(session, add_evaluation(session, hub.suites["demo"], state=EvaluationState.RUNNING).id or 0)
    lines = evalyard("status", "1").out.splitlines()
    assert lines[-3].endswith("2 attempts (1 released, 1 running), and an engine was started again once within one.")
    assert lines[-2:] == [
        "  infer on engine-1, within the attempt: The engine was killed. Starting it again.",
        "  infer on engine-1, 2026-03-04 12:00 UTC, 3 min, released: The GPU is wanted.",
    ]


def test_an_unknown_evaluation_is_a_sentence(evalyard: Command) -> None:
    ran = evalyard("status", "77")
    assert (ran.code, ran.out) == (1, "")
    assert "There is no evaluation 77." in ran.err


def test_the_board_as_table_json_and_csv(hub: Hub, evalyard: Command) -> None:
    assert "nothing is ranked yet" in evalyard("board", "--suite", "demo").out
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], model="acme/low", values={**DEMO, "Sums": 10.0})
        add_evaluation(session, hub.suites["demo"], model="acme/high", values=DEMO)
        add_evaluation(session, hub.suites["demo"], model="acme/trial", values=DEMO, limit=2)
    table = evalyard("board").out
    assert table.index("acme/high") < table.index("acme/low") < table.index("Not ranked") < table.index("acme/trial")
    assert [row["model"] for row in evalyard("board", "--json").json["ranked"]] == ["acme/high", "acme/low"]
    rows = list(csv.DictReader(io.StringIO(evalyard("board", "--csv").out)))
    assert [row["model"] for row in rows] == ["acme/high", "acme/low", "acme/trial"]
    assert "Did you mean 'demo'?" in evalyard("board", "--suite", "dmeo").err


def test_suites_and_queue_have_a_form_for_people_and_one_for_scripts(evalyard: Command) -> None:
    assert "open-llm-v2" in evalyard("suites").out
    assert "demo_letters" in evalyard("suites", "demo").out
    assert {suite["name"] for suite in evalyard("suites", "--json").json} >= {"demo", "open-llm-v1", "open-llm-v2"}
    assert "The queue is empty." in evalyard("queue").out
    assert evalyard("queue", "--json").json["waiting"] == []


def test_cancel_and_retry_act_or_say_why_not(hub: Hub, evalyard: Command, model: Path) -> None:
    evalyard("submit", str(model), "--suite", "demo")
    assert evalyard("boost", "1", "--days", "-3").out == "Evaluation 1 counts as made 3 days later.\n"
    assert evalyard("retry", "1").code == 1
    assert "Cancelled evaluation 1." in evalyard("cancel", "1").out
    assert evalyard("cancel", "1").code == 1
    with hub.writing() as session:
        failed = add_evaluation(session, hub.suites["demo"], state=EvaluationState.FAILED)
    ran = evalyard("retry", str(failed.id))
    again = "Queued evaluation 2 again: what failed is done anew, and what was computed is kept."
    assert (ran.code, ran.out) == (0, f"{again}\n")
    with hub.writing() as session:
        jobs.cancel(session, failed.id or 0, datetime.now(UTC))
        add_evaluation(session, hub.suites["demo"], model="acme/other", state=EvaluationState.FAILED)
    assert evalyard("retry", "3", "--json").json["message"] == again.replace("2", "3")


def test_reproduce_prints_a_script(hub: Hub, evalyard: Command) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    ran = evalyard("reproduce", "1")
    assert ran.out.startswith("#!/bin/sh\n")
    assert ran.out.count("lm_eval run") == 3
    assert len(evalyard("reproduce", "1", "--json").json["commands"]) == 3


def test_backup_without_data_never_takes_another_folder_than_the_running_systems(
    evalyard: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVALYARD_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    ran = evalyard("backup", str(tmp_path / "copy"))
    assert (ran.code, ran.out) == (1, "")
    assert "Give its data folder with --data" in ran.err
    assert not (tmp_path / "copy").exists()
    assert not (tmp_path / "home").exists()


def test_a_script_that_cannot_work_stops_with_that_sentence_before_it_installs(
    hub: Hub, evalyard: Command, tmp_path: Path
) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    ran = evalyard("reproduce", "1")
    assert ran.err.startswith("lm_eval alone cannot run this as it stands:")
    assert ran.out.index("\nexit 1\n") < ran.out.index("\npip install")
    assert "evalyard parity " in ran.out or "scripted" in ran.out
    script = tmp_path / "again.sh"
    script.write_text(ran.out)
    again = subprocess.run(["sh", str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == ran.err


def test_a_script_that_can_work_says_so_and_does_not_stop(hub: Hub, evalyard: Command) -> None:
    suite = hub.suites["open-llm-v2"]
    with hub.writing() as session:
        row = add_evaluation(session, suite, values={benchmark.name: 1.0 for benchmark in suite.benchmarks})
        row.engine = EngineFamily.TRANSFORMERS
    ran = evalyard("reproduce", "1")
    assert ran.err.startswith("Runs with lm_eval alone")
    assert "\nexit 1\n" not in ran.out
    assert "evalyard parity acme/model-1b --suite open-llm-v2 --engine transformers" in ran.out


def test_a_board_is_sorted_by_a_column_that_it_has_or_not_at_all(hub: Hub, evalyard: Command) -> None:
    ran = evalyard("board", "--suite", "demo", "--sort", "averge")
    assert (ran.code, ran.out) == (2, "")
    assert "Did you mean 'average'?" in " ".join(ran.err.split())
    assert evalyard("board", "--suite", "demo", "--sort", "letters").code == 2
    assert evalyard("board", "--suite", "demo", "--sort", "Letters").code == 0


def test_a_wait_is_told_again_and_ctrl_c_says_how_to_come_back(
    hub: Hub, evalyard: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], state=EvaluationState.RUNNING, requests=(1, 4))

    def interrupt(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt

    looks: list[float] = []
    monkeypatch.setattr(narrator, "SILENCE_SECONDS", 0.0)
    monkeypatch.setattr("submissions.cli.follow.time.sleep", interrupt)
    ran = evalyard("status", "1", "--follow")
    assert (ran.code, ran.out) == (130, "")
    assert re.search(r"running, 1 of 4 requests answered.* \(0 s\)", ran.err)
    assert f"Evaluation 1 goes on where it is computed: {program()} status 1 --follow" in ran.err
