"""Each fault of a model has its sentence, its field and its class; all are told at once."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from orchestrator.wire import FailureKind, Precision
from submissions.cards import parse_card
from submissions.case import Case
from submissions.findings import find_faults
from tests.submissions.models import edit, facts_of, faults


def test_a_sound_model_has_no_fault_and_its_facts_are_read_from_headers(model: Path) -> None:
    facts = facts_of(model)
    assert find_faults(Case(model=facts)) == []
    assert facts.revision.startswith("sha256-")
    assert (facts.name, facts.architectures) == ("tiny", ("LlamaForCausalLM",))
    assert facts.weight_precision is Precision.FLOAT32
    assert facts.parameters == sum(facts.weights.elements.values())
    assert facts.weight_bytes == 4 * (facts.parameters or 0)


Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    ("spoil", "field", "kind", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "model", FailureKind.CONFIG, "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "model", FailureKind.CONFIG, "config.json is not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "model", FailureKind.CONFIG, "not a JSON object"),
        (lambda f: (f / "config.json").write_text("[" * 9999), "model", FailureKind.CONFIG, "not valid JSON"),
        (lambda f: edit(f / "config.json", model_type=None), "model", FailureKind.CONFIG, "names no model_type"),
        (
            lambda f: edit(f / "config.json", model_type="strange", auto_map={"AutoModel": "code.Model"}),
            "model",
            FailureKind.REMOTE_CODE,
            "runs no code of a model",
        ),
        (
            lambda f: edit(f / "config.json", architectures=["BertForMaskedLM"]),
            "model",
            FailureKind.ARCHITECTURE,
            "does not generate text",
        ),
        (lambda f: (f / "tokenizer.json").unlink(), "model", FailureKind.TOKENIZER, "has no tokenizer files"),
        (lambda f: (f / "model.safetensors").unlink(), "model", FailureKind.WEIGHTS, "has no safetensors weights"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "model",
            FailureKind.WEIGHTS,
            "pickle files (.bin) only",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64),
            "model",
            FailureKind.WEIGHTS,
            "is not a safetensors file",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes((8).to_bytes(8, "little") + b"[1, 2,,]"),
            "model",
            FailureKind.WEIGHTS,
            "damaged safetensors header",
        ),
        (lambda f: save_file({}, f / "model.safetensors"), "model", FailureKind.WEIGHTS, "hold no tensor"),
    ],
)
def test_each_fault_of_a_folder_has_its_sentence(
    model: Path, spoil: Spoil, field: str, kind: FailureKind, words: str
) -> None:
    spoil(model)
    found = find_faults(Case(model=facts_of(model)))
    assert [(fault.field, fault.kind) for fault in found] == [(field, kind)]
    assert words in found[0].sentence
    assert "tiny" in found[0].sentence


def test_remote_code_is_not_needed_for_a_model_type_that_transformers_knows(model: Path) -> None:
    edit(model / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Llama"})
    assert faults(model) == []


def test_gguf_only_is_named_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.Q4_K_M.gguf").write_bytes(b"GGUF")
    assert "GGUF files only" in find_faults(Case(model=facts_of(tmp_path)))[0].sentence


def test_all_faults_are_told_at_once(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "model.safetensors").unlink()
    found = faults(model, chat_template=True, precision=Precision.GPTQ)
    assert [field for field, _ in found] == ["model", "model", "precision", "chat_template"]


def test_an_index_must_be_complete_and_stay_inside_the_folder(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "two.safetensors"}}))
    assert "lacks weights that its index names: two.safetensors" in find_faults(Case(model=facts_of(model)))[0].sentence
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    assert "outside the model's folder" in find_faults(Case(model=facts_of(model)))[0].sentence


def test_a_chat_template_is_found_in_each_of_its_places(model: Path) -> None:
    assert faults(model, chat_template=True) == [("chat_template", FailureKind.CHAT_TEMPLATE)]
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert faults(model, chat_template=True) == []
    (model / "chat_template.jinja").unlink()
    edit(model / "tokenizer_config.json", chat_template="{{ messages }}")
    assert faults(model, chat_template=True) == []
    others = model / "additional_chat_templates"
    others.mkdir()
    (others / "rag.jinja").write_text("{{ messages }}")
    assert faults(model, chat_template=True) == [("chat_template", FailureKind.CHAT_TEMPLATE)]
    (others / "default.jinja").write_text("{{ messages }}")
    assert faults(model, chat_template=True) == []


@pytest.mark.parametrize(("name", "is_fine"), [("default", True), ("tool_use", False)])
def test_of_several_chat_templates_the_default_one_is_meant(model: Path, name: str, is_fine: bool) -> None:
    edit(model / "tokenizer_config.json", chat_template=[{"name": name, "template": "{{ messages }}"}])
    assert (faults(model, chat_template=True) == []) is is_fine


def test_a_processors_chat_template_counts_where_there_is_a_processor(model: Path) -> None:
    (model / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert faults(model, chat_template=True) == [("chat_template", FailureKind.CHAT_TEMPLATE)]
    (model / "preprocessor_config.json").write_text("{}")
    assert faults(model, chat_template=True) == []


def test_the_licence_comes_from_the_cards_header(model: Path) -> None:
    for text, licence in (
        ("---\nlicense: mit\n---\n# A model", "mit"),
        ("---\nlicense: other\nlicense_name: acme-1\n---\n", "acme-1"),
        ("---\ntags: [x]\n---\nlicense: mit", None),
        ("license: mit", None),
    ):
        (model / "README.md").write_text(text)
        assert facts_of(model).licence == licence


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\r\nlicense: mit\r\nlicense_link: x\r\n---\r\nA model\r\n", "mit"),
        ("\ufeff---\nlicense: mit\n---\nA model", "mit"),
        ("---\nlicense:\n- mit\n- apache-2.0\n---\nA model", "mit"),
        ("---\nlicense: [mit, apache-2.0]\n---\nA model", "mit"),
        ("---\nlicense: mit # of the code\n---\nA model", "mit"),
        (
            "---\r\nlicense: other\r\nlicense_name: acme-1\r\nlicense_link: https://a.example\r\n---\r\nA model",
            "acme-1",
        ),
        ("---\nlicense:\nlanguage:\n- en\n---\nA model", None),
        ("---\nlicense: see the file\n---\nA model", None),
    ],
)
def test_a_licence_is_found_however_the_header_is_written(text: str, licence: str | None) -> None:
    card = parse_card(text)
    assert (card.licence, card.has_licence) == (licence, licence is not None)
    assert card.characters == len("A model")
