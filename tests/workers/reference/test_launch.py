"""How lm-eval is started: with which arguments, and what becomes of a start that fails."""

from pathlib import Path
from typing import Any

import pytest

from workers.reference import launch
from workers.reference.back_ends import arguments
from workers.reference.records import BackEnd, ReferenceBenchmark, ReferenceWork


def work(back_end: BackEnd = "vllm", **more: Any) -> ReferenceWork:
    benchmarks = tuple(ReferenceBenchmark(name=name, tasks=(name,)) for name in ("arc_easy", "gsm8k"))
    given = {"model_name": "org/tiny", "model_folder": "folder", "dtype": "float32", "benchmarks": benchmarks}
    return ReferenceWork(back_end=back_end, **given | more)


@pytest.mark.parametrize("back_end", ["vllm", "hf"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_neither_remote_code_nor_another_model_can_be_asked_for(back_end: BackEnd, device: str) -> None:
    asked = work(back_end, model_args={"trust_remote_code": True, "pretrained": "org/other", "dtype": "float16"})
    given = arguments(asked, device_type=device).model_args
    assert (given["trust_remote_code"], given["pretrained"], given["dtype"]) == (False, "folder", "float16")
    assert given.get("use_safetensors") is True or given["load_format"] == "safetensors"


def test_batch_size_and_context_limit_go_by_lm_eval_s_names() -> None:
    hf = arguments(work("hf", context_limit=96), device_type="cpu")
    assert (hf.batch_size, hf.model_args["max_length"]) == (1, 96)
    assert arguments(work("hf", batch_size="auto"), device_type="cuda").batch_size == "auto"
    vllm = arguments(work(context_limit=96), device_type="cpu")
    assert (vllm.batch_size, vllm.model_args["max_model_len"]) == ("auto", 96)


def test_on_a_gpu_vllm_runs_as_lm_eval_s_command_line_would_run_it() -> None:
    given = arguments(work(), device_type="cuda")
    assert given.model_args.keys() == {"dtype", "load_format", "pretrained", "trust_remote_code"}
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in given.environment


def test_a_process_that_ends_without_a_word_fails_alone_with_its_exit_code_and_log(tmp_path: Path) -> None:
    found = launch.run_fresh(work(), tmp_path / "out", python="false")
    assert list(found) == ["arc_easy", "gsm8k"]
    for failed in found.values():
        assert isinstance(failed, launch.ReferenceFailed)
        assert failed.sentence.startswith("lm-eval's vllm back end gave no results: its process ended with exit code 1")
        assert failed.log.is_file()
