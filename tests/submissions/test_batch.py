"""Many models from one file: every form of it, and waiting where waiting is meant."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.errors import Refused
from submissions.batches import Line, read_batch
from submissions.cli.batch import AWAY_SECONDS, MOST_IN_A_ROW, submit_all
from submissions.cli.client import ApiRefused
from tests.hub_stub import HubStub
from tests.submissions.command import Command

REQUEST = {
    "model": "acme/one", "base_model": "", "revision": "0" * 40, "precision": "torch.float16", "params": 7.242,
    "architectures": "MistralForCausalLM", "weight_type": "Original", "status": "PENDING",
    "submitted_time": "2024-06-26T10:00:00Z", "model_type": "🔶 : fine-tuned on domain-specific datasets",
    "job_id": -1, "job_start_time": None, "use_chat_template": False, "sender": "somebody",
}  # fmt: skip


def asked(path: Path, content: str) -> list[dict[str, Any]]:
    path.write_text(content, encoding="utf-8")
    return [line.asked for line in read_batch(path)]


def test_each_form_of_a_file_says_the_same(tmp_path: Path) -> None:
    wanted = [{"model": "acme/one"}, {"model": "acme/two", "revision": "v2"}]
    assert asked(tmp_path / "m.txt", "# ours\nacme/one\n\nacme/two@v2  # the second\n") == wanted
    assert asked(tmp_path / "m.csv", "model,revision\nacme/one,\nacme/two,v2\n") == wanted
    assert asked(tmp_path / "m.jsonl", '{"model": "acme/one"}\n{"model": "acme/two", "revision": "v2"}') == wanted


def test_a_leaderboards_request_file_is_read_as_the_submission_that_it_was(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "one_eval_request_False_float16_Original.json").write_text(json.dumps(REQUEST))
    gptq = REQUEST | {"precision": "GPTQ", "weight_type": "Adapter", "base_model": "acme/base", "model_type": "chat"}
    (tmp_path / "acme" / "two.json").write_text(json.dumps(gptq))
    first, second = (line.asked for line in read_batch(tmp_path))
    assert first == {
        "model": "acme/one", "revision": "0" * 40, "precision": "float16", "weight_type": "original",
        "model_type": "fine-tuned", "chat_template": False,
    }  # fmt: skip
    assert (second["precision"], second["weight_type"], second["base_model"]) == ("gptq", "adapter", "acme/base")


def test_what_cannot_be_read_is_a_fault_of_its_line_alone(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    file.write_text('{"model": "acme/one"}\n{"model":\n[1]\n')
    assert [line.fault for line in read_batch(file)] == [
        "", "It is not valid JSON.", "It is no JSON object that names a model.",
    ]  # fmt: skip
    (tmp_path / "m.csv").write_text("model,colour\nacme/one,red\n")
    assert read_batch(tmp_path / "m.csv") == [
        Line("m.csv:2", {}, "There is no field 'colour'. The first line names the request's fields.")
    ]
    (tmp_path / "rows.csv").write_text("model,limit\n,5\nacme/one,5,6\nacme/two,5\n")
    assert [(line.where, line.fault) for line in read_batch(tmp_path / "rows.csv")] == [
        ("rows.csv:2", "It names no model."),
        ("rows.csv:3", "It has more fields than the first line names."),
        ("rows.csv:4", ""),
    ]
    (tmp_path / "huge.csv").write_text(f"model\n{'x' * 200_000}\n")
    with pytest.raises(Refused, match="cannot be read as CSV"):
        read_batch(tmp_path / "huge.csv")
    (tmp_path / "quoted.csv").write_text('model,revision\n"acme/one\n",v2\nacme/two,v2\n')
    assert [line.asked["model"] for line in read_batch(tmp_path / "quoted.csv")] == ["acme/one", "acme/two"]
    (tmp_path / "at.txt").write_text("@main\n")
    assert [line.fault for line in read_batch(tmp_path / "at.txt")] == ["It names no model."]
    (tmp_path / "number.jsonl").write_text('{"model": 5}\n')
    (number,) = read_batch(tmp_path / "number.jsonl")
    assert number.fault == "It is no JSON object that names a model."
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(Refused, match="names no model"):
        read_batch(tmp_path / "empty.txt")


def test_a_batch_goes_on_after_a_refusal_and_submits_nothing_twice(
    evalyard: Command, hf_hub: HubStub, model: Path, tmp_path: Path
) -> None:
    hf_hub.add("acme/one", model)
    file = tmp_path / "models.txt"
    file.write_text("acme/none\nacme/one\nacme/one@main\n")
    ran = evalyard("batch", str(file), "--suite", "demo", "--json")
    assert ran.code == 1
    assert [one["accepted"] for one in ran.json] == [False, True, True]
    assert len({one["evaluation"] for one in ran.json[1:]}) == 1
    checked = evalyard("batch", str(file), "--suite", "demo", "--check-only")
    assert "models.txt:2: acme/one would be accepted." in checked.out


def refusing(statuses: dict[str, list[int]]) -> Callable[[Line], dict[str, Any]]:
    """Answers each line with these statuses, one after the other, and then accepts it."""

    def submit(line: Line) -> dict[str, Any]:
        if statuses.get(line.where):
            raise ApiRefused(
                "The Hub does not answer.", problem={}, status=statuses[line.where].pop(0), retry_after=60.0
            )
        return {"where": line.where, "accepted": True, "message": "Queued."}

    return submit


def ran(lines: list[str], statuses: dict[str, list[int]], *, patience: float = 3600) -> tuple[list[Any], Any, Any]:
    """Accepted or not by line, in which order they were said, and how long was slept."""
    said: list[str] = []
    waited: list[float] = []
    done = submit_all(
        [Line(where, {}) for where in lines],
        refusing(statuses),
        patience=patience,
        say=lambda one: said.append(one["where"]),
        sleep=waited.append,
    )
    return [(one["where"], one["accepted"]) for one in done], said, waited


def test_a_line_that_has_to_wait_is_come_back_to_after_the_others() -> None:
    done, said, waited = ran(["a", "b", "c"], {"a": [503, 429]})
    assert done == [("a", True), ("b", True), ("c", True)]
    assert (said, waited) == (["b", "c", "a"], [60.0, 60.0])


def test_what_is_waited_for_in_vain_is_said_and_the_rest_was_not_held_up() -> None:
    done, said, waited = ran(["a", "b"], {"a": [503] * 9}, patience=90)
    assert (done, said, waited) == ([("a", False), ("b", True)], ["b", "a"], [60.0])


def test_nothing_is_waited_for_without_patience() -> None:
    done, _, waited = ran(["a", "b"], {"a": [503]}, patience=0)
    assert (done, waited) == ([("a", False), ("b", True)], [])


def test_where_all_have_to_wait_the_hub_is_asked_for_a_few_of_them_alone() -> None:
    lines = [f"line {number}" for number in range(20)]
    statuses = {line: [503] * 2 for line in lines}
    done, _, waited = ran(lines, statuses, patience=60)
    assert {accepted for _, accepted in done} == {False}
    assert len(done) == 20
    assert (sum(map(len, statuses.values())), waited) == (40 - 2 * MOST_IN_A_ROW, [60.0])


def test_only_checking_waits_for_no_hub(evalyard: Command, hf_hub: HubStub, tmp_path: Path) -> None:
    (tmp_path / "models.txt").write_text("acme/one\nacme/two\n")
    hf_hub.status = 503
    checked = evalyard("batch", str(tmp_path / "models.txt"), "--suite", "demo", "--check-only")
    assert checked.code == 1
    assert "0 of 2 would be accepted, 0 refused, 2 to be asked for again later." in checked.err


def test_a_server_that_goes_away_in_the_middle_is_waited_for_and_one_that_was_never_there_is_not(
    evalyard: Command, hf_hub: HubStub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf_hub.add("acme/one", model)
    (tmp_path / "models.txt").write_text("acme/one\nacme/one\n")
    ask, is_away = httpx.Client.request, iter([False, True])

    def restarted(client: httpx.Client, method: str, url: str, **rest: Any) -> httpx.Response:
        if next(is_away, False):
            raise httpx.ConnectError("Connection refused")
        return ask(client, method, url, **rest)

    waited: list[float] = []
    monkeypatch.setattr(httpx.Client, "request", restarted)
    monkeypatch.setattr("submissions.cli.batch.submit_all", partial(submit_all, sleep=waited.append))
    ran = evalyard("batch", str(tmp_path / "models.txt"), "--suite", "demo")
    assert (ran.code, waited) == (0, [AWAY_SECONDS])
    assert "1 of 2 lines have to wait: No Evalyard answers at" in ran.err
    is_away = iter([True])
    ran = evalyard("batch", str(tmp_path / "models.txt"), "--suite", "demo")
    assert (ran.code, len(waited)) == (1, 1)
    assert "No Evalyard answers at" in ran.err


def test_ctrl_c_says_that_the_same_command_goes_on(
    evalyard: Command, hf_hub: HubStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    (tmp_path / "models.txt").write_text("acme/one\n")
    hf_hub.status = 503
    monkeypatch.setattr("submissions.cli.batch.submit_all", partial(submit_all, sleep=interrupt))
    ran = evalyard("batch", str(tmp_path / "models.txt"), "--suite", "demo")
    assert ran.code == 130
    assert "the same command goes on: it submits nothing twice" in ran.err
