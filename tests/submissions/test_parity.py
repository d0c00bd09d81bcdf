"""`evalyard parity` through real processes: Evalyard's three stages and lm-eval's own back end on the shipped tasks."""

import json
from pathlib import Path

import msgspec
import pytest

from submissions.cli import main
from submissions.local.plan import read_notes
from tests.adapters import build_adapter
from tests.tiny import build_tiny_model
from workers import segments
from workers.sheets import SheetInfo, write_info

SUITE = """
name = "pair"
version = "1"
title = "A pair"
harness = "lm_eval 0.4.13"
[[benchmarks]]
name = "Both"
tasks = ["demo_letters", "demo_sums"]
parts = [{ task = "demo_letters", metric = "acc" }]
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "pair.toml").write_text(SUITE)
    monkeypatch.setenv("EVALYARD_SUITES", str(tmp_path / "suites"))
    monkeypatch.setenv("EVALYARD_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "tiny")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ending:
        main([str(argument) for argument in arguments])
    return int(ending.value.code or 0)


def test_the_transformers_engine_is_in_parity_with_lm_eval_s_hf(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("parity", model, "--suite", "pair", "--limit", 6, "--engine", "transformers", "--json")
    code = run(*command, "--output", tmp_path / "out")
    record = json.loads(capsys.readouterr().out)
    assert (code, record["in_parity"], record["against"]) == (0, True, "lm-eval-hf")
    (benchmark,) = record["benchmarks"]
    found = benchmark["parity"]
    assert (found["documents"], found["log_likelihoods"], found["choices"], found["texts_equal"]) == (12, 24, 6, 6)
    assert found["largest_difference"] < 1e-4
    assert [(pair["metric"], pair["judged"]) for pair in found["metrics"]] == [("acc", True), ("exact_match", False)]
    assert benchmark["reference"]["benchmarks"][0]["requests"] == {"loglikelihood": 24, "generate_until": 6}
    written = {path.relative_to(tmp_path / "out").parts[0] for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {"parity.json", "evalyard", "lm-eval"}


@pytest.mark.slow
@pytest.mark.vllm
def test_the_vllm_engine_is_in_parity_and_wrong_responses_are_not(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("parity", model, "--suite", "pair", "--limit", 6, "--engine", "vllm")
    assert run(*command) == 0
    assert "In parity with lm-eval-vllm." in capsys.readouterr().out
    _spoil(data / "local" / "responses")
    assert run(*command) == 1
    said = capsys.readouterr()
    assert "Not in parity with lm-eval-vllm: 1 of 1 benchmarks." in said.out
    assert "24 of 24 log-likelihoods are 0.001 or more apart" in said.err


@pytest.mark.slow
@pytest.mark.vllm
def test_an_adapter_is_in_parity_with_lm_eval_s_vllm_on_its_base(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = build_adapter(tmp_path / "adapter", model, rank=20)
    command = ("parity", adapter, "--weight-type", "adapter", "--base-model", model, "--suite", "pair", "--limit", 6)
    code = run(*command, "--engine", "vllm", "--precision", "float32", "--json")
    record = json.loads(capsys.readouterr().out)
    assert (code, record["in_parity"], record["against"]) == (0, True, "lm-eval-vllm")
    found = record["benchmarks"][0]
    assert found["parity"]["largest_difference"] < 1e-3
    assert found["reference"]["model_args"]["lora_local_path"] == str(adapter)


def _spoil(responses: Path) -> None:
    """Shift every kept log-likelihood by a hundredth, in segments that are whole."""
    for path in responses.glob("*/*/*.jsonl.zst"):
        header, found = segments.read(path)
        path.unlink()
        shifted = [
            msgspec.structs.replace(one, logprob=one.logprob - 0.01) if isinstance(one, segments.Scored) else one
            for one in found
        ]
        segments.seal(path.parent, 1, header, shifted)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--suite", "demo", "--engine", "scripted"], 1, "The scripted engine makes its answers up."),
        (["--suite", "demo", "--engine", "vllm", "--precision", "4bit"], 1, "cannot be compared"),
        (["--engine", "transformers"], 2, "Give either --suite or --tasks."),
        (["--suite", "demo", "--against", "lm-eval"], 2, "'lm-eval-vllm', 'lm-eval-hf'"),
    ],
)
def test_what_cannot_be_compared_gets_a_sentence_and_leaves_no_trace(
    arguments: list[str], code: int, sentence: str, model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("parity", model, *arguments) == code
    assert sentence in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (data / "local" / "parity").exists()


def test_cut_requests_and_odd_first_prompts_of_each_sheet_are_said(tmp_path: Path) -> None:
    for name, truncated, warnings in (("ARC", 12, []), ("Sums", 0, ["It begins oddly."]), ("Plain", 0, [])):
        folder = tmp_path / "sheets" / name
        folder.mkdir(parents=True)
        info = SheetInfo(
            name, "hf", 4000, 0, 0, truncated, 0, {}, plan={"context_limit": 2048}, provenance={"warnings": warnings}
        )
        write_info(folder, info)
    assert read_notes(tmp_path) == [
        "ARC: 12 of 4,000 requests were cut to the context limit of 2,048 tokens, as lm-eval cuts them.",
        "Sums: It begins oddly.",
    ]
