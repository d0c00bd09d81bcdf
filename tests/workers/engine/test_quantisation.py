"""Quantised weights: what the installed vLLM says of them, and what it computes with them on a CPU."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire import EngineFamily, FailureKind, Model, Precision
from tests.quantised import SCHEMES, quantise
from tests.tiny import build_tiny_model
from tests.workers.engine.factories import IDENTITY, infer_work, responses_in, write_sheet
from tests.workers.engine.test_real_engines import log_likelihoods
from workers import child
from workers.engine.info import EngineMissing, engine_info
from workers.segments import Scored
from workers.sheets import Loglikelihood

TOLERANCE = 0.4
"""Of bfloat16 arithmetic on weights whose answers spread over about eight."""

ASK = """
import json, sys
from orchestrator.wire import Model
from workers.engine.quantisation import refuse_unsupported
from workers.stage import StageFailure
for precision, dtype, section in json.load(sys.stdin):
    model = Model(name="acme/m", revision="0", precision=precision)
    try:
        refuse_unsupported(model, {"quantization_config": section} if section else {}, dtype=dtype)
        print("ANSWER fine")
    except StageFailure as refusal:
        print("ANSWER", refusal.kind.value, refusal.sentence)
"""


NO_AMX = {} if "amx_tile" in Path("/proc/cpuinfo").read_text() else {"fp8": "takes a CPU with AMX"}
"""What this machine's CPU cannot compute, with what is said of it."""


def on_gpu() -> bool:
    """False where there is no vLLM at all: then the tests run, and fail by saying so."""
    try:
        return engine_info(EngineFamily.VLLM).device_type != "cpu"
    except EngineMissing:
        return False


@pytest.mark.skipif(on_gpu(), reason="needs vLLM's CPU build, and this host computes on a GPU")
def test_vllm_itself_says_which_quantised_weights_it_computes_with() -> None:
    channel = {"weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}
    cases: list[tuple[str, str, dict[str, Any] | None, str]] = [
        ("bfloat16", "bfloat16", None, "fine"),
        *(("bfloat16", "bfloat16", SCHEMES[name], NO_AMX.get(name, "fine")) for name in SCHEMES),
        ("gptq", "float16", SCHEMES["gptq"], "fine"),
        ("bfloat16", "bfloat16", SCHEMES["gptq"] | {"quant_method": "auto-round"}, "fine"),
        ("float32", "float32", SCHEMES["awq"], "computes in float16 or bfloat16, not in float32"),
        ("bfloat16", "bfloat16", {"quant_method": "fp8"}, "on a CPU only in blocks"),
        ("bfloat16", "bfloat16", SCHEMES["int8"] | {"config_groups": {"a": channel}}, "on a CPU only in blocks"),
        ("bfloat16", "bfloat16", {"quant_method": "aqlm"}, "quantised with aqlm, which vLLM"),
        ("4bit", "bfloat16", None, "vllm-bnb-plugin"),
    ]
    asked = json.dumps([case[:3] for case in cases])
    told = subprocess.run([sys.executable, "-c", ASK], input=asked, capture_output=True, text=True, timeout=300)
    answers = [line.removeprefix("ANSWER ") for line in told.stdout.splitlines() if line.startswith("ANSWER ")]
    assert len(answers) == len(cases), told.stderr[-2000:]
    for answer, (*_, words) in zip(answers, cases, strict=True):
        assert words in answer
        assert answer == "fine" or answer.startswith("precision ")


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.skipif(on_gpu(), reason="needs vLLM's CPU build, and this host computes on a GPU")
@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_vllm_answers_with_quantised_weights_as_what_they_unpack_to_answers(scheme: str, tmp_path: Path) -> None:
    pair = quantise(tmp_path, build_tiny_model(tmp_path / "base", hidden=128), scheme)
    asked = [request for request in log_likelihoods() if len(request.continuation) == 1]
    precision = Precision.GPTQ if scheme == "gptq" else Precision.BFLOAT16
    outcome = answer(tmp_path / "vllm", EngineFamily.VLLM, pair.quantised, asked, precision)
    if scheme in NO_AMX:
        assert (outcome.failure, NO_AMX[scheme] in outcome.sentence) == (FailureKind.PRECISION, True)
        return
    found = answers(tmp_path / "vllm", outcome)
    unpacked = tmp_path / "transformers"
    expected = answers(unpacked, answer(unpacked, EngineFamily.TRANSFORMERS, pair.unpacked, asked, Precision.FLOAT32))
    assert len(found) == len(asked)
    assert {request: found[request] for request in expected} == pytest.approx(expected, abs=TOLERANCE)


def answer(
    folder: Path, engine: EngineFamily, model_folder: Path, asked: list[Loglikelihood], precision: Precision
) -> child.Outcome:
    work = infer_work(
        {"A": write_sheet(folder / "sheet", asked)},
        engine=engine,
        model=Model(name="acme/m", revision="sha256-0", precision=precision),
        model_folder=str(model_folder),
        identity=IDENTITY | {"dtype": "float16" if precision is Precision.GPTQ else precision.value},
    )
    return child.start(work, folder / "out", log=folder / "log").outcome()


def answers(folder: Path, outcome: child.Outcome) -> dict[str, float]:
    assert outcome.done, outcome.sentence + outcome.log_tail
    return {one.id: one.logprob for one in responses_in(folder / "out") if isinstance(one, Scored)}
