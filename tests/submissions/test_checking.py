"""Checking a model without submitting it: everything at once, what passed too, by page, API and command."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from submissions.examining import MOST_EXAMINING, MOST_OF_ONE, places
from submissions.faults import Busy
from tests.hub_stub import HubStub, sha_of
from tests.submissions.command import Command
from tests.submissions.conftest import ok
from tests.submissions.models import edit
from tests.submissions.pages import page


def test_the_api_tells_every_finding_with_class_sentence_and_next_step(client: TestClient, model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "model.safetensors").unlink()
    found = ok(client.post("/api/v1/checks", json={"model": str(model), "suite": "demo", "precision": "gptq"})).json()
    assert not found["accepted"]
    assert found["message"] == "tiny would be refused, for 3 reasons."
    faults = {one["check"]: one for one in found["findings"] if one["outcome"] == "fault"}
    assert {name: one["kind"] for name, one in faults.items()} == {
        "tokenizer": "tokenizer", "weights": "weights", "precision": "precision",
    }  # fmt: skip
    assert all(one["sentence"] and one["next_step"] and one["field"] for one in faults.values())
    assert "config" in {one["check"] for one in found["findings"] if one["outcome"] == "passed"}


def test_an_accepted_model_is_told_what_was_seen_and_that_an_equal_evaluation_is_there(
    client: TestClient, hf_hub: HubStub, model: Path
) -> None:
    (model / "README.md").write_text("---\nlicense: mit\nbase_model: acme/base\n---\n# A model")
    hf_hub.add("acme/new", model)
    hf_hub.renamed["acme/old"] = "acme/new"
    asked = {"model": "acme/old", "suite": "demo"}
    found = ok(client.post("/api/v1/checks", json=asked)).json()
    assert (found["accepted"], found["model"], found["revision"]) == (True, "acme/new", sha_of("acme/new"))
    assert (found["precision"], found["model_type"], found["existing"]) == ("float32", "fine-tuned", None)
    seen = {one["check"]: one["sentence"] for one in found["findings"]}
    assert "which was called acme/old" in seen["repository"]
    assert seen["card"].startswith("mit; ")
    number = ok(client.post("/api/v1/evaluations", json=asked)).json()["evaluation"]["id"]
    assert ok(client.post("/api/v1/checks", json=asked)).json()["existing"] == number


def test_the_form_checks_without_scripts_and_keeps_what_was_typed(client: TestClient, model: Path) -> None:
    given = {"model": str(model), "suite": "demo", "chat_template": "yes", "limit": "3"}
    answer = ok(client.post("/submit/check", data=given))
    assert 'id="chat_template-error"' in answer.text
    assert "has no chat template" in answer.text
    assert 'data-precision="float32"' in answer.text
    assert 'name="limit" value="3"' in answer.text
    assert 'formaction="/submit/check"' in answer.text
    assert page(client, "/queue") is not None
    assert ok(client.get("/api/v1/evaluations")).json()["evaluations"] == []


def test_a_hub_in_trouble_is_said_and_the_form_keeps_everything(client: TestClient, hf_hub: HubStub) -> None:
    hf_hub.status = 429
    answer = client.post("/submit/check", data={"model": "acme/tiny", "suite": "demo"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert "asks us to wait (429)" in answer.text
    assert 'value="acme/tiny"' in answer.text
    told = client.post("/api/v1/checks", json={"model": "acme/tiny"})
    assert (told.status_code, told.headers["retry-after"]) == (503, "60")


def test_where_many_models_are_examined_one_more_is_told_to_come_again(client: TestClient, model: Path) -> None:
    asked = {"model": str(model), "suite": "demo"}
    with ExitStack() as taken:
        for _ in range(MOST_EXAMINING):
            taken.enter_context(places.taken())
        for path in ("/api/v1/checks", "/api/v1/evaluations"):
            refused = client.post(path, json=asked)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        for path in ("/submit/check", "/submit"):
            kept = client.post(path, data=asked)
            assert (kept.status_code, kept.headers["retry-after"]) == (503, "5")
            assert f'value="{model}"' in kept.text
        assert client.get("/").status_code == 200
    assert client.post("/api/v1/evaluations", json=asked).status_code == 201


def test_nobody_has_all_the_models_examined_that_can_be_at_a_time() -> None:
    with ExitStack() as taken:
        for _ in range(MOST_OF_ONE):
            taken.enter_context(places.taken(7))
        with pytest.raises(Busy):
            taken.enter_context(places.taken(7))
        taken.enter_context(places.taken(8))
    with places.taken(7):
        pass


def test_the_command_lists_what_passed_and_what_did_not(evalyard: Command, model: Path) -> None:
    edit(model / "config.json", architectures=["BertForMaskedLM"])
    ended = evalyard("check", str(model), "--suite", "demo")
    assert ended.code == 1
    assert ended.out.startswith("tiny would be refused, for 1 reason.\n")
    assert "FAIL  Architecture that generates [architecture]: tiny is a BertForMaskedLM" in ended.out
    assert "ok    Weights in safetensors: 1 file, F32" in ended.out


def test_a_fault_of_the_request_stands_under_its_own_name_and_not_the_repositorys(
    client: TestClient, evalyard: Command, model: Path
) -> None:
    asked = {"model": str(model), "suite": "demoo", "precision": "float32"}
    found = {one["check"]: one for one in client.post("/api/v1/checks", json=asked).json()["findings"]}
    assert (found["suite"]["outcome"], found["repository"]["outcome"]) == ("fault", "passed")
    assert "FAIL  Suite: " in evalyard("check", str(model), "--suite", "demoo").out
    asked = {"model": str(model), "suite": "demo", "visibility": "private"}
    (only,) = client.post("/api/v1/checks", json=asked).json()["findings"]
    assert (only["check"], only["title"]) == ("visibility", "Who may see it")


def test_a_number_is_refused_in_words_that_say_what_it_is_for(evalyard: Command, model: Path) -> None:
    refused = evalyard("submit", str(model), "--series", "run", "--step", "-1")
    said = " ".join(refused.err.split())
    assert (refused.code, "-1 is too small; the least is 0. Give the step of the training run" in said) == (2, True)
    commands = (["status", "77"], ["cancel", "77"], ["retry", "77"])
    assert {evalyard(*words).err for words in commands} == {
        "There is no evaluation 77. The latest ones are in the queue.\n"
    }
