"""The commands that need no server, through the real stage programs; the scripted engine stands in for inference."""

import json
from pathlib import Path

import pytest
import yaml

from submissions.cli import main
from submissions.local import engine_settings, plan
from tests.tiny import build_tiny_model
from workers.harness.folders import SHIPPED_TASKS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALYARD_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("EVALYARD_ENGINE", "scripted")
    return tmp_path / "data"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ending:
        main([str(argument) for argument in arguments])
    return int(ending.value.code or 0)


def test_evaluate_gives_scores_and_lm_evals_files_and_answers_nothing_twice(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ("evaluate", model, "--tasks", "demo_letters", "--limit", 6, "--json")
    assert run(*command, "--output", tmp_path / "out") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["inference"]["computed"] == 24
    (benchmark,) = first["benchmarks"]
    assert {(score["task"], score["metric"], score["samples"]) for score in benchmark["scores"]} >= {
        ("demo_letters", "acc", 6)
    }
    results = json.loads(Path(first["results_file"]).read_text())
    assert results["results"]["demo_letters"]["acc,none"] == benchmark["scores"][0]["value"]
    samples = next(Path(first["results_file"]).parent.glob("samples_demo_letters_*.jsonl"))
    assert len(samples.read_text().splitlines()) == 6

    # Settings that no engine takes: none is made.
    assert run(*command, "--engine-settings", '{"no_such_setting": 1}') == 0
    second = json.loads(capsys.readouterr().out)
    assert (second["inference"]["computed"], second["inference"]["reused"]) == (0, 24)
    assert second["benchmarks"] == first["benchmarks"]


def test_the_stages_by_hand_give_what_evaluate_gives(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    sheets, responses = tmp_path / "sheets", tmp_path / "responses"
    assert run("prepare", model, "--tasks", "demo_letters", "--limit", 6, "--output", "../sheets") == 0
    assert f"infer {sheets} --output RESPONSES" in capsys.readouterr().err
    impossible = ("--engine-settings", '{"no_such_setting": 1}')
    assert run("infer", sheets, "--output", responses, *impossible) == 1
    assert run("infer", sheets, "--output", responses) == 0
    capsys.readouterr()
    assert run("infer", sheets, "--output", responses, *impossible) == 0
    assert capsys.readouterr().out.strip() == "0 computed, 24 known already: no engine was started"
    assert run("score", sheets, responses, "--output", tmp_path / "results", "--json") == 0
    by_hand = json.loads(capsys.readouterr().out)
    assert run("evaluate", model, "--tasks", "demo_letters", "--limit", 6, "--json") == 0
    assert json.loads(capsys.readouterr().out)["benchmarks"] == by_hand


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["evaluate", "MODEL", "--suite", "dem"], 1, "Did you mean 'demo'?"),
        (["evaluate", "MODEL"], 2, "Give either --suite or --tasks."),
        (["evaluate", "MODEL", "--suite", "demo", "--num-fewshot", "3"], 2, "decides its shots itself"),
        (["evaluate", "MODEL", "--suite", "demo", "--engine-settings", "[1]"], 2, "must be a JSON object"),
        (["evaluate", "/no/such/folder", "--suite", "demo"], 1, "/no/such/folder"),
        (["evaluate", "MODEL", "--suite", "demo", "--precision", "fp8"], 2, "'fp8' is none of auto, bfloat16"),
        (["evaluate", "MODEL", "--suite", "demo", "--limit", "2000000"], 1, "limit: 2000000 is too large; the most is"),
        (["infer", "EMPTY", "--output", "x"], 1, "There are no sheets"),
        (["score", "EMPTY", "EMPTY", "--output", "x"], 1, "There are no sheets"),
    ],
)
def test_bad_input_gets_a_sentence_and_leaves_no_trace(
    arguments: list[str],
    code: int,
    sentence: str,
    model: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    names = {"MODEL": str(model), "EMPTY": str(tmp_path)}
    assert run(*(names.get(word, word) for word in arguments)) == code
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert sentence in said
    assert "Traceback" not in said
    assert not (data / "local" / "runs").exists()


def test_a_task_that_does_not_exist_is_named_before_any_other_is_run(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
):
    assert run("evaluate", model, "--tasks", "demo_letters,demo_leters", "--limit", 6) == 1
    said = capsys.readouterr().err.strip()
    assert "has no task or group 'demo_leters'. Did you mean demo_letters" in said
    assert said.endswith("?")
    assert not (data / "local" / "runs").exists()


def test_a_team_evaluates_its_own_suite_on_its_own_task_files(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    suites = tmp_path / "suites"
    (suites / "tasks").mkdir(parents=True)
    monkeypatch.setenv("EVALYARD_SUITES", str(suites))
    task = yaml.safe_load((SHIPPED_TASKS / "demo" / "demo_letters.yaml").read_text())
    (suites / "tasks" / "our_letters.yaml").write_text(yaml.safe_dump(task | {"task": "our_letters"}))
    (suites / "ours.toml").write_text(
        'name = "ours"\nversion = "1"\ntitle = "Ours"\nharness = "lm_eval 0.4.13"\n'
        '[[benchmarks]]\nname = "Letters"\ntasks = ["our_letters"]\n'
        'parts = [{ task = "our_letters", metric = "acc", baseline = 0.25 }]\n'
    )
    assert run("evaluate", model, "--suite", "ours", "--limit", 6, "--json") == 0
    assert json.loads(capsys.readouterr().out)["average"] is not None
    sheets, responses = tmp_path / "sheets", tmp_path / "responses"
    assert run("prepare", model, "--tasks", "our_letters", "--limit", 6, "--output", sheets) == 0
    assert run("infer", sheets, "--output", responses) == 0
    assert run("score", sheets, responses, "--output", tmp_path / "results") == 0


def test_a_mistyped_setting_of_vllm_is_told_before_anything_is_done(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(engine_settings, "vllm_arguments", lambda: frozenset({"max_num_seqs", "block_size"}))
    words = ("--suite", "demo", "--engine", "vllm", "--engine-settings", '{"max_num_seq": 3}')
    assert run("evaluate", model, *words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "vLLM has no setting 'max_num_seq'. Did you mean 'max_num_seqs'?" in said
    assert not data.exists()


def test_vllms_arguments_are_known_where_it_is_installed():
    known = engine_settings.vllm_arguments()
    assert not known or {"max_num_seqs", "block_size", "enforce_eager"} <= known


def test_8bit_advises_what_this_machine_can_compute(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(plan, "device_type", lambda engine: "cpu")
    assert run("evaluate", model, "--suite", "demo", "--engine", "vllm", "--precision", "8bit") == 1
    said = capsys.readouterr().err
    assert "Choose 'bfloat16' or 'auto'." in said
    assert "4bit" not in said
