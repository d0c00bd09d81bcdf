"""Each fault of a model has its sentence, its field and its class; all are told at once."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from orchestrator.wire import EngineFamily, FailureKind, Precision
from submissions.checks import Case, find_faults, resolve_precision
from submissions.facts import ModelFacts, Weights, read_facts
from submissions.faults import SubmissionRefused
from submissions.hub import HUB_NAME, MOST_FILES, Unreadable, open_model, parse_header


def facts_of(folder: Path) -> ModelFacts:
    return read_facts(open_model(str(folder)))


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file; None removes a key."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def faults(folder: Path, **case: Any) -> list[tuple[str, FailureKind | None]]:
    return [(fault.field, fault.kind) for fault in find_faults(Case(model=facts_of(folder), **case))]


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


@pytest.mark.parametrize(
    ("quantization", "stored", "asked", "is_fine"),
    [
        (None, "F32", Precision.FLOAT32, True),
        (None, "BF16", Precision.FLOAT16, False),
        (None, "F16", Precision.BFLOAT16, True),
        (None, "BF16", Precision.FOUR_BIT, True),
        (None, "BF16", Precision.GPTQ, False),
        ({"quant_method": "gptq", "bits": 4}, "F16", Precision.GPTQ, True),
        ({"quant_method": "gptq", "bits": 4}, "F16", Precision.BFLOAT16, False),
        ({"quant_method": "awq", "bits": 4}, "F16", Precision.FLOAT16, True),
        ({"quant_method": "awq", "bits": 4}, "F16", Precision.EIGHT_BIT, False),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "BF16", Precision.FOUR_BIT, True),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "BF16", Precision.EIGHT_BIT, False),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "BF16", Precision.BFLOAT16, False),
    ],
)
def test_a_precision_must_be_what_the_weights_can_be_loaded_as(
    quantization: dict[str, Any] | None, stored: str, asked: Precision, is_fine: bool
) -> None:
    facts = made_up(stored=stored, quantization=quantization)
    found = find_faults(Case(model=facts, precision=asked))
    assert (found == []) is is_fine
    assert all(fault.field == "precision" and fault.kind is FailureKind.PRECISION for fault in found)


@pytest.mark.parametrize(
    ("asked", "quantization", "has_gpu", "engine", "is_fine"),
    [
        (Precision.FOUR_BIT, None, False, EngineFamily.VLLM, False),
        (None, {"quant_method": "bitsandbytes", "load_in_8bit": True}, False, EngineFamily.VLLM, False),
        (None, {"quant_method": "bitsandbytes", "load_in_4bit": True}, False, EngineFamily.VLLM, False),
        (Precision.FOUR_BIT, None, True, EngineFamily.VLLM, True),
        (Precision.FOUR_BIT, None, None, EngineFamily.VLLM, True),
        (Precision.FOUR_BIT, None, False, EngineFamily.TRANSFORMERS, True),
        (Precision.BFLOAT16, None, False, EngineFamily.VLLM, True),
    ],
)
def test_bitsandbytes_is_refused_where_no_worker_has_a_gpu(
    asked: Precision | None,
    quantization: dict[str, Any] | None,
    has_gpu: bool | None,
    engine: EngineFamily,
    is_fine: bool,
) -> None:
    case = Case(model=made_up(quantization=quantization), precision=asked, has_gpu=has_gpu, engine=engine)
    found = find_faults(case)
    assert (found == []) is is_fine
    assert all(fault.field == "precision" and "worker with a GPU" in fault.sentence for fault in found)


def test_vllm_is_asked_for_8_bits_only_where_the_weights_are_stored_so() -> None:
    (fault,) = find_faults(Case(model=made_up(), precision=Precision.EIGHT_BIT, has_gpu=False))
    assert "only where the repository holds them" in fault.sentence
    other = Case(model=made_up(), precision=Precision.EIGHT_BIT, engine=EngineFamily.TRANSFORMERS)
    assert find_faults(other) == []


@pytest.mark.parametrize(
    ("config", "stored", "resolved"),
    [
        ({"torch_dtype": "bfloat16"}, "BF16", Precision.BFLOAT16),
        ({"dtype": "torch.float16"}, "F16", Precision.FLOAT16),
        ({"text_config": {"dtype": "float32"}}, "F32", Precision.FLOAT32),
        ({}, "F16", Precision.FLOAT16),
        ({}, "F64", Precision.FLOAT32),
        ({}, "U8", Precision.BFLOAT16),
        ({"quantization_config": {"quant_method": "gptq"}, "dtype": "float16"}, "I32", Precision.GPTQ),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "U8", Precision.FOUR_BIT),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "I8", Precision.EIGHT_BIT),
        ({"quantization_config": {"quant_method": "fp8"}, "dtype": "bfloat16"}, "F8_E4M3", Precision.BFLOAT16),
    ],
)
def test_auto_is_what_the_weights_were_saved_in(config: dict[str, Any], stored: str, resolved: Precision) -> None:
    assert resolve_precision(Case(model=made_up(stored=stored, config=config))) is resolved


def test_quantised_weights_are_counted_unpacked() -> None:
    gptq = made_up(stored="I32", quantization={"quant_method": "gptq", "bits": 4}, elements=1000)
    assert gptq.parameters == 8000


def test_a_chat_template_is_found_in_each_of_its_places(model: Path) -> None:
    assert faults(model, chat_template=True) == [("chat_template", FailureKind.CHAT_TEMPLATE)]
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert faults(model, chat_template=True) == []
    (model / "chat_template.jinja").unlink()
    edit(model / "tokenizer_config.json", chat_template="{{ messages }}")
    assert faults(model, chat_template=True) == []


def make_adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4} | config))
    save_file({"lora_A": np.zeros((4, 32), dtype=np.float32)}, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_needs_its_base_and_is_submitted_as_one(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base_model_name_or_path="acme/base")
    base = facts_of(model)
    as_adapter = {"weight_type": "adapter", "engine": EngineFamily.SCRIPTED}
    assert faults(adapter, base=base, **as_adapter) == []
    assert faults(adapter, **as_adapter) == [("base_model", None)]
    assert faults(model, base=base, **as_adapter) == [("weight_type", FailureKind.CONFIG)]
    (as_original,) = find_faults(Case(model=facts_of(adapter), engine=EngineFamily.SCRIPTED))
    assert "Submit it with weight type 'adapter' and base model acme/base" in as_original.sentence


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "only LoRA is applied"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1]}, "rows of the embeddings"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"r": 1024}, "rank 1024"),
    ],
)
@pytest.mark.parametrize("weight_type", ["adapter", "original"])
def test_an_adapter_that_no_engine_applies_is_refused_with_one_reason(
    config: dict[str, Any], words: str, weight_type: str, model: Path, tmp_path: Path
) -> None:
    adapter = facts_of(make_adapter(tmp_path / "adapter", **config))
    for base in (None, facts_of(model)):
        (fault,) = find_faults(Case(model=adapter, base=base, weight_type=weight_type))
        assert (fault.field, fault.kind) == ("weight_type", FailureKind.ARCHITECTURE)
        assert words in fault.sentence
        assert "Merge it into its base model" in fault.sentence


@pytest.mark.parametrize(
    "config",
    [{"use_rslora": True}, {"init_lora_weights": "gaussian"}, {"modules_to_save": None}, {"rank_pattern": {"x": 8}}],
)
def test_a_plain_lora_adapter_is_accepted_by_every_engine(config: dict[str, Any], model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", **config)
    for engine in EngineFamily:
        assert faults(adapter, base=facts_of(model), weight_type="adapter", engine=engine) == []


def test_an_adapter_s_own_tokenizer_is_the_one_that_counts(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    edit(model / "tokenizer_config.json", chat_template="{{ messages }}")
    asked = {"weight_type": "adapter", "chat_template": True}
    assert faults(adapter, base=facts_of(model), **asked) == []
    shutil.copy(model / "tokenizer.json", adapter)
    (adapter / "tokenizer_config.json").write_text("{}")
    assert faults(adapter, base=facts_of(model), **asked) == [("chat_template", FailureKind.CHAT_TEMPLATE)]
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    assert faults(adapter, base=facts_of(model), **asked) == []


def test_an_adapter_comes_as_safetensors(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert faults(adapter, base=facts_of(model), weight_type="adapter") == [("model", FailureKind.WEIGHTS)]


def test_a_whole_model_submitted_as_an_adapter_is_told_so_and_nothing_else(model: Path) -> None:
    (fault,) = find_faults(Case(model=facts_of(model), weight_type="adapter"))
    assert (fault.field, fault.kind) == ("weight_type", FailureKind.CONFIG)
    assert "Submit it with weight type 'original'" in fault.sentence


def test_faults_of_the_base_belong_to_its_field(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    bare = Path(shutil.copytree(model, tmp_path / "bare"))
    (bare / "model.safetensors").unlink()
    found = faults(adapter, base=facts_of(bare), weight_type="adapter", engine=EngineFamily.SCRIPTED)
    assert found == [("base_model", FailureKind.WEIGHTS)]


def test_the_licence_comes_from_the_cards_header(model: Path) -> None:
    for text, licence in (
        ("---\nlicense: mit\n---\n# A model", "mit"),
        ("---\nlicense: other\nlicense_name: acme-1\n---\n", "acme-1"),
        ("---\ntags: [x]\n---\nlicense: mit", None),
        ("license: mit", None),
    ):
        (model / "README.md").write_text(text)
        assert facts_of(model).licence == licence


@given(st.binary(max_size=200))
def test_a_hostile_header_is_refused_and_never_raises_anything_else(header: bytes) -> None:
    with contextlib.suppress(Unreadable):
        assert parse_header("x.safetensors", header).tensors >= 0


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [10**4000] * 5000},
        {"dtype": "F32", "shape": [1 << 40, 1 << 40]},
        {"dtype": "F32", "shape": [-1]},
        {"dtype": "F32", "shape": [2.5]},
        {"dtype": "F32", "shape": ["3"]},
        {"dtype": "x" * 100, "shape": [1]},
        {"dtype": "<b>", "shape": [1]},
        {"dtype": 1, "shape": [1]},
    ],
)
def test_a_header_with_impossible_numbers_is_refused_at_once(tensor: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match="damaged safetensors header"):
        parse_header("x.safetensors", json.dumps({"a": tensor}).encode())


def test_words_of_a_config_are_kept_short_and_printable(model: Path) -> None:
    edit(model / "config.json", architectures=["a\x00\x1b[31m" + "b" * 10_000] * 1000)
    found = facts_of(model).architectures
    assert len(found) == 8
    assert all(len(name) <= 80 and name.isprintable() for name in found)


def test_a_folder_that_is_the_whole_machine_is_looked_at_for_a_moment_only(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}").mkdir()
        for file in range(1000):
            (tmp_path / f"{number:02}" / f"{file}.bin").touch()
    (tmp_path / "z.bin").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    files = facts_of(tmp_path).files
    assert "z.bin" in files
    assert len(files) <= MOST_FILES + 1000


@pytest.mark.parametrize("name", ["/" + "a" * 900, "/tmp/\x00", "/dev/null", "/nowhere"])
def test_an_impossible_path_is_a_fault_of_the_model(name: str) -> None:
    with pytest.raises(SubmissionRefused) as refused:
        open_model(name)
    assert refused.value.faults[0].field == "model"


def test_a_folder_whose_name_would_write_to_a_terminal_is_refused(model: Path) -> None:
    odd = model.rename(model.with_name("x\x1b]0;y\x07\nz"))
    with pytest.raises(SubmissionRefused, match="cannot be shown") as refused:
        open_model(str(odd))
    assert refused.value.faults[0].sentence.isprintable()


@given(st.text(max_size=120))
def test_an_odd_name_is_refused_with_one_printable_sentence(name: str) -> None:
    if name.strip().startswith("/"):
        return
    if HUB_NAME.fullmatch(name.strip()) and ".." not in name and "--" not in name:
        return
    with pytest.raises(SubmissionRefused) as refused:
        open_model(name)
    (fault,) = refused.value.faults
    assert fault.field == "model"
    assert fault.sentence.isprintable()


@pytest.mark.parametrize("name", ["../../etc", "a/../b", "a/b/c", "org/..", "org/.hidden", "o\x00/x", "x" * 200, "~/m"])
def test_a_name_never_reaches_outside_the_mirror(name: str, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    with pytest.raises(SubmissionRefused):
        open_model(name, mirror=mirror)


def made_up(
    *,
    stored: str = "BF16",
    quantization: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    elements: int = 10,
) -> ModelFacts:
    whole = {"model_type": "llama"} | (config or {})
    if quantization is not None:
        whole["quantization_config"] = quantization
    return ModelFacts(
        name="acme/model",
        revision="0" * 40,
        folder=None,
        files={"config.json": 1, "tokenizer.json": 1, "model.safetensors": 1},
        config=whole,
        tokenizer_config={},
        adapter_config=None,
        has_generation_config=False,
        has_chat_template=False,
        licence=None,
        weights=Weights(files=("model.safetensors",), elements={stored: elements}, tensors=1),
        unreadable={},
    )
