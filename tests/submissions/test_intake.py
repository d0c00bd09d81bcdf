"""A submission is checked, pinned and queued once; a refused one leaves no trace."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlmodel import col, select

from orchestrator import db
from orchestrator.keys import evaluation_key
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.settings import HubSettings
from orchestrator.suites import load_suites
from orchestrator.tables import Evaluation, Job, Submission
from orchestrator.wire import EngineFamily, FailureKind, Precision, Stage
from submissions.context import Hub
from submissions.examining import examine
from submissions.faults import HubAway, SubmissionRefused
from submissions.intake import Intake, record, submit
from submissions.request import SubmissionRequest
from tests.hub_stub import HubStub, sha_of
from tests.submissions.factories import NOON, add_worker, make_hub, rows
from tests.submissions.models import make_adapter

SUITES = load_suites()


def take(hub: Hub, **request: Any) -> Intake:
    with hub.writing() as session:
        asked = SubmissionRequest(**({"suite": "demo"} | request))
        return submit(session, hub.settings, suites=hub.suites, request=asked, now=NOON)


def refusal(hub: Hub, **request: Any) -> list[tuple[str, str]]:
    with pytest.raises(SubmissionRefused) as refused:
        take(hub, **request)
    return [(fault.field, fault.sentence) for fault in refused.value.faults]


def test_an_accepted_folder_becomes_submission_evaluation_and_jobs(hub: Hub, model: Path) -> None:
    taken = take(hub, model=str(model), model_type="chat", limit=5)
    assert not taken.existing
    submission, evaluation = taken.submission, taken.evaluation
    assert submission.revision.startswith("sha256-")
    assert (submission.model, submission.folder) == ("tiny", str(model))
    assert (submission.precision, submission.model_type) == (Precision.FLOAT32, "chat")
    assert (evaluation.suite, evaluation.suite_version, evaluation.document_limit) == ("demo", "1", 5)
    assert (evaluation.engine, evaluation.state) == (EngineFamily.SCRIPTED, EvaluationState.QUEUED)
    with hub.reading() as session:
        jobs = [(job.stage, job.benchmark, job.state) for job in session.exec(select(Job))]
    names = ["Letters", "Stories", "Sums"]
    assert sorted(jobs) == sorted(
        [(Stage.PREPARE, name, JobState.QUEUED) for name in names]
        + [(Stage.INFER, "", JobState.BLOCKED)]
        + [(Stage.SCORE, name, JobState.BLOCKED) for name in names]
    )


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        ({"model": "/nowhere/at/all"}, "model", "There is no folder /nowhere/at/all"),
        ({"model": "no good name"}, "model", "neither a Hub id nor the absolute path"),
        ({"suite": "dmo"}, "suite", "Did you mean 'demo'?"),
        ({"revision": "v2"}, "revision", "has no revision 'v2'"),
        ({"chat_template": True}, "chat_template", "has no chat template"),
        ({"precision": "gptq"}, "precision", "are not GPTQ"),
        ({"weight_type": "adapter"}, "weight_type", "is not an adapter"),
        ({"base_model": "acme/base"}, "base_model", "goes with weight type 'adapter' only"),
    ],
)
def test_a_refused_submission_leaves_no_trace(
    hub: Hub, model: Path, request_: dict[str, Any], field: str, words: str
) -> None:
    found = refusal(hub, **({"model": str(model)} | request_))
    assert found[0][0] == field
    assert words in found[0][1]
    assert rows(hub) == [0, 0, 0, 0]


def test_faults_of_request_and_model_are_told_together(hub: Hub, model: Path) -> None:
    (model / "model.safetensors").unlink()
    fields = [field for field, _ in refusal(hub, model=str(model), suite="none", chat_template=True)]
    assert fields == ["suite", "model", "chat_template"]


def test_four_bits_are_refused_once_the_only_engine_worker_is_known_to_have_no_gpu(tmp_path: Path, model: Path) -> None:
    hub = make_hub(tmp_path / "data", engine=EngineFamily.VLLM)
    assert not take(hub, model=str(model), precision="4bit").existing
    facts = {"kind": "engine", "now": NOON, "engine_family": EngineFamily.VLLM}
    with hub.writing() as session:
        add_worker(session, "engine-1", device_type="cpu", **facts)
    ((field, sentence),) = refusal(hub, model=str(model), precision="4bit", limit=1)
    assert (field, sentence[:39]) == ("precision", "4bit needs an engine worker with a GPU,")
    with hub.writing() as session:
        add_worker(session, "engine-2", device_type="cuda", **facts)
    assert not take(hub, model=str(model), precision="4bit", limit=1).existing


def test_an_equal_submission_is_the_evaluation_that_is_there(hub: Hub, model: Path) -> None:
    first = take(hub, model=str(model))
    before = rows(hub)
    again = take(hub, model=str(model), precision="float32")
    assert again.existing
    assert again.evaluation.id == first.evaluation.id
    assert rows(hub) == before


@pytest.mark.parametrize("change", [{"limit": 3}, {"precision": "bfloat16"}, {"suite": "open-llm-v1"}])
def test_what_changes_a_score_makes_another_evaluation(hub: Hub, model: Path, change: dict[str, Any]) -> None:
    first = take(hub, model=str(model))
    second = take(hub, model=str(model), **change)
    assert not second.existing
    assert second.evaluation.id != first.evaluation.id


def test_changed_files_are_another_revision(hub: Hub, model: Path) -> None:
    first = take(hub, model=str(model))
    (model / "generation_config.json").write_text('{"eos_token_id": 5}')
    second = take(hub, model=str(model))
    assert not second.existing
    assert second.submission.revision != first.submission.revision


def test_a_moved_folder_is_the_same_model(hub: Hub, model: Path) -> None:
    first = take(hub, model=str(model))
    moved = model.rename(model.with_name("moved"))
    assert take(hub, model=str(moved)).evaluation.id == first.evaluation.id


def test_a_cancelled_evaluation_no_longer_stands_for_its_model(hub: Hub, model: Path) -> None:
    first = take(hub, model=str(model))
    with hub.writing() as session:
        row = session.get(Evaluation, first.evaluation.id)
        assert row is not None
        row.state = EvaluationState.CANCELLED
    second = take(hub, model=str(model))
    assert not second.existing
    assert take(hub, model=str(model)).evaluation.id == second.evaluation.id


def test_equal_submissions_at_the_same_moment_are_one_evaluation(engine: Engine, model: Path, tmp_path: Path) -> None:
    settings = HubSettings(data=tmp_path / "data", engine=EngineFamily.SCRIPTED)
    accepted = examine(settings, SUITES, request=SubmissionRequest(model=str(model), suite="demo"))
    together = threading.Barrier(8)

    def race() -> Intake:
        together.wait()
        with db.session(engine) as session:
            return record(session, accepted, now=NOON)

    with ThreadPoolExecutor(8) as pool:
        taken = [future.result() for future in [pool.submit(race) for _ in range(8)]]
    assert len({found.evaluation.id for found in taken}) == 1
    assert sorted(found.existing for found in taken) == [False] + [True] * 7
    with db.session(engine, read_only=True) as session:
        assert len(session.exec(select(Submission)).all()) == 1
        assert len(session.exec(select(Job)).all()) == 7


def test_whatever_a_config_says_databases_can_look_into_what_is_kept_of_it(
    engine: Engine, model: Path, tmp_path: Path
) -> None:
    """PostgreSQL takes such JSON, and fails at every query that looks into it: a re-run's plan, of all models."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"dtype": None, "torch_dtype": "zero\x00half\ud800"}))
    settings = HubSettings(data=tmp_path / "data", engine=EngineFamily.SCRIPTED)
    asked = SubmissionRequest(model=str(model), suite="demo", precision=Precision.FLOAT32)
    with db.session(engine) as session:
        record(session, examine(settings, SUITES, request=asked), now=NOON)
    with db.session(engine, read_only=True) as session:
        assert session.exec(select(col(Submission.facts)["weight_bytes"].as_string())).one().isdigit()


def test_a_hub_model_is_pinned_to_its_commit(hub: Hub, hf_hub: HubStub, model: Path) -> None:
    sha = hf_hub.add("acme/tiny", model)
    taken = take(hub, model="acme/tiny", revision="main")
    assert (taken.submission.model, taken.submission.revision, taken.submission.folder) == ("acme/tiny", sha, None)
    assert taken.submission.parameters == take(hub, model=str(model), limit=1).submission.parameters
    fetched = [path for path in hf_hub.requests if "/resolve/" in path]
    assert not any(path.endswith((".bin", ".py")) for path in fetched)


def test_a_renamed_repository_is_followed_and_recorded(hub: Hub, hf_hub: HubStub, model: Path) -> None:
    hf_hub.add("acme/new", model)
    hf_hub.renamed["acme/old"] = "acme/new"
    taken = take(hub, model="acme/old")
    assert taken.submission.model == "acme/new"
    assert taken.submission.facts["asked_name"] == "acme/old"
    assert take(hub, model="acme/new").existing


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        ({"model": "acme/none"}, "model", "There is no model acme/none on the Hub"),
        ({"model": "acme/tiny", "revision": "v2"}, "revision", "Model acme/tiny has no revision 'v2'. Use a branch"),
        ({"model": "acme/gated"}, "model", "Model acme/gated is gated. Ask for access"),
    ],
)
def test_the_hub_refuses_in_sentences(
    hub: Hub, hf_hub: HubStub, model: Path, request_: dict[str, Any], field: str, words: str
) -> None:
    hf_hub.add("acme/tiny", model)
    hf_hub.add("acme/gated", model)
    hf_hub.gated.add("acme/gated")
    (found,) = refusal(hub, **request_)
    assert found[0] == field
    assert words in found[1]
    assert rows(hub) == [0, 0, 0, 0]


def test_a_hub_in_trouble_is_nobodys_fault(hub: Hub, hf_hub: HubStub) -> None:
    hf_hub.status = 500
    with pytest.raises(HubAway, match=r"The Hub is in trouble \(500\), so acme/tiny could not be checked"):
        take(hub, model="acme/tiny")
    assert rows(hub) == [0, 0, 0, 0]


def test_a_hub_that_is_slow_or_silent_is_away_and_refuses_nothing(
    hub: Hub, hf_hub: HubStub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf_hub.add("acme/slow", model)
    with monkeypatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as silent:
        patch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        patch.setattr("submissions.opening.REQUEST_SECONDS", 0.05)
        with pytest.raises(HubAway, match="The Hub does not answer, so acme/slow could not be checked"):
            take(hub, model="acme/slow")
    with monkeypatch.context() as patch:
        patch.setattr("submissions.repositories.READ_SECONDS", 0.0)
        with pytest.raises(HubAway, match="try again in a few minutes"):
            take(hub, model="acme/slow")
    assert rows(hub) == [0, 0, 0, 0]
    assert not take(hub, model="acme/slow").existing


def test_the_mirror_stands_for_the_hub(tmp_path: Path, hf_hub: HubStub, model: Path) -> None:
    mirror = tmp_path / "mirror"
    (mirror / "acme").mkdir(parents=True)
    model.rename(mirror / "acme" / "tiny")
    hub = make_hub(tmp_path / "data", models=mirror)
    taken = take(hub, model="acme/tiny")
    assert (taken.submission.model, taken.submission.folder) == ("acme/tiny", str(mirror / "acme" / "tiny"))
    assert hf_hub.requests == []
    assert "this site's mirror" in refusal(hub, model="acme/tiny", revision="v9")[0][1]


def test_an_adapters_base_is_read_from_its_config(hub: Hub, hf_hub: HubStub, model: Path, tmp_path: Path) -> None:
    hf_hub.add("acme/base", model)
    adapter = make_adapter(tmp_path / "adapter", base_model_name_or_path="acme/base")
    taken = take(hub, model=str(adapter), weight_type="adapter").submission
    assert (taken.base_model, taken.base_revision) == ("acme/base", sha_of("acme/base"))
    assert taken.architecture == "LlamaForCausalLM"
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(SubmissionRefused) as refused:
        take(hub, model=str(adapter), weight_type="adapter")
    assert [(fault.field, fault.kind) for fault in refused.value.faults] == [("base_model", None)]


def test_an_adapter_says_which_commit_of_its_base_it_was_trained_on(
    hub: Hub, hf_hub: HubStub, model: Path, tmp_path: Path
) -> None:
    hf_hub.add("acme/base", model)
    adapter = make_adapter(tmp_path / "adapter", base_model_name_or_path="acme/base", revision="v7")
    ((field, sentence),) = refusal(hub, model=str(adapter), weight_type="adapter")
    assert (field, "no revision 'v7'" in sentence) == ("base_model", True)
    asked = {"model": str(adapter), "weight_type": "adapter", "base_model": "acme/base"}
    assert take(hub, **asked).submission.base_revision == sha_of("acme/base")


def test_a_base_that_is_no_hub_id_is_named_by_the_submitter(hub: Hub, model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base_model_name_or_path="/home/somebody/base")
    ((field, sentence),) = refusal(hub, model=str(adapter), weight_type="adapter")
    assert (field, "'/home/somebody/base', which is no Hub id" in sentence) == ("base_model", True)
    taken = take(hub, model=str(adapter), weight_type="adapter", base_model=str(model)).submission
    assert (taken.base_folder, str(taken.base_revision)[:7]) == (str(model), "sha256-")


def test_no_base_is_looked_for_where_the_adapter_is_refused_anyway(tmp_path: Path, hf_hub: HubStub) -> None:
    adapter = make_adapter(tmp_path / "adapter", base_model_name_or_path="acme/gone", use_dora=True)
    hub = make_hub(tmp_path / "data", engine=EngineFamily.VLLM)
    ((field, sentence),) = refusal(hub, model=str(adapter), weight_type="adapter")
    assert (field, "DoRA" in sentence) == ("weight_type", True)
    assert hf_hub.requests == []


def test_a_fault_of_the_model_carries_its_class(hub: Hub, model: Path) -> None:
    (model / "tokenizer.json").unlink()
    with pytest.raises(SubmissionRefused) as refused:
        take(hub, model=str(model))
    assert [fault.kind for fault in refused.value.faults] == [FailureKind.TOKENIZER]


IDENTITY: dict[str, Any] = {
    "revision": "a" * 40,
    "precision": Precision.BFLOAT16,
    "weight_type": "original",
    "base_revision": None,
    "chat_template": False,
    "suite": "demo",
    "suite_version": "1",
    "limit": None,
    "engine": EngineFamily.VLLM,
}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "revision": st.text("ab", min_size=1, max_size=3),
            "precision": st.sampled_from(Precision),
            "base_revision": st.none() | st.text("ab", min_size=1, max_size=3),
            "chat_template": st.booleans(),
            "suite_version": st.text("12", min_size=1, max_size=2),
            "limit": st.none() | st.integers(1, 3),
            "engine": st.sampled_from(EngineFamily),
        },
    )
)
def test_keys_are_equal_exactly_when_identities_are(change: dict[str, Any]) -> None:
    other = IDENTITY | change
    assert (evaluation_key(**other) == evaluation_key(**IDENTITY)) is (other == IDENTITY)
