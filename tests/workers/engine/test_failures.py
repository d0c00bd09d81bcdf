import errno
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from orchestrator.wire import FailureKind
from workers.engine.failures import classify


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), FailureKind.OUT_OF_MEMORY),
        (MemoryError(), FailureKind.OUT_OF_MEMORY),
        (ValueError("... GiB) on kv cache allocation is less than requested memory for kv"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("NaNs detected in logits: {'1': 547}"), FailureKind.INVALID_OUTPUT),
        (ValueError("Model architectures ['X'] are not supported for now."), FailureKind.ARCHITECTURE),
        (ValueError("1 validation error\n  Please pass `trust_remote_code=True`"), FailureKind.REMOTE_CODE),
        (ValueError("Unknown quantization method: bitsandbytes"), FailureKind.PRECISION),
        (RuntimeError("Error while deserializing header: SafetensorError"), FailureKind.WEIGHTS),
        (RuntimeError("something nobody has seen"), FailureKind.ENGINE),
    ],
)
def test_an_engine_s_words_are_given_their_class(error: Exception, kind: FailureKind) -> None:
    assert classify(error, "org/model").kind is kind


def test_an_architecture_that_is_not_known_comes_with_the_versions_that_matter() -> None:
    gone = (
        "Model architecture QWenLMHeadModel was supported in vLLM until v0.23.0, and is not supported anymore. Please "
        "use an older version of vLLM if you want to use this model architecture."
    )
    failure = classify(ValueError(gone), "org/model")
    assert failure.kind is FailureKind.ARCHITECTURE
    assert f"transformers {metadata.version('transformers')}" in failure.sentence
    assert "vLLM 0.23.0 was the last that could." in failure.sentence
    unknown = classify(ValueError("Model architectures ['X'] are not supported for now."), "org/model")
    assert "A newer version may." in unknown.sentence


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_under_the_engine_is_the_storage_s_failure(number: int) -> None:
    error = RuntimeError("The segment could not be sealed.")
    error.__cause__ = OSError(number, "…", "segment")
    failure = classify(error, "org/model")
    assert (failure.kind, failure.lasting) == (FailureKind.STORAGE, False)
    assert os.strerror(number) in failure.sentence


# As vLLM 0.32 words them.
NO_CACHE = "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing."
SMALL_CACHE = (
    "To serve at least one request with the model's max seq len (32768), (4.0 GiB KV cache is needed, which is larger "
    "than the available KV cache memory (1.5 GiB). Based on the available memory, the estimated maximum length is 9."
)
NEIGHBOUR = (
    "Free memory on device cuda:0 (3/79 GiB) on startup is less than desired GPU memory utilization (0.92, 72.8 GiB)."
    " Decrease GPU memory utilization or reduce GPU memory used by other processes."
)
CORE_FAILED = "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
CORE_DIED = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@pytest.mark.parametrize("words", [NO_CACHE, SMALL_CACHE])
def test_a_cache_without_room_is_final_as_less_at_a_time_gives_it_none(words: str) -> None:
    failure = classify(ValueError(words), "org/model")
    assert (failure.kind, failure.lasting) == (FailureKind.OUT_OF_MEMORY, True)
    assert "more or larger GPUs" in failure.sentence
    assert not classify(RuntimeError("CUDA out of memory."), "org/model").lasting


def test_memory_that_a_neighbour_holds_is_not_the_model_s_fault() -> None:
    for error in (
        ValueError(NEIGHBOUR),
        AssertionError("Error in memory profiling. Initial free memory 3 GiB, "),
    ):
        failure = classify(error, "org/model")
        assert failure.kind is FailureKind.ENGINE
        assert "another program holds memory" in failure.sentence
        assert "larger" not in failure.sentence


INFO = """(EngineCore pid=7) INFO 11-22 08:00:00 [core.py:112] Initializing a V1 LLM engine with config: \
quantization=gptq, tokenizer='/m', trust_remote_code=False, out of memory
"""


def logged(error: str) -> str:
    """A worker's traceback, then the engine core's, then the bare one that Python prints when a process ends."""
    worker = f'Traceback (most recent call last):\n  File "w.py", line 1, in init\n    load()\n{error}'
    core = (
        "Traceback (most recent call last):\nException: WorkerProc initialization failed due to an exception in a "
        "background process. See stack trace for root cause."
    )
    prefix = "{} ERROR 11-22 08:00:09 [{}] ".format
    return INFO + "\n".join(
        [
            *(prefix("(Worker_TP1 pid=9)", "multiproc_executor.py:953") + line for line in worker.splitlines()),
            *(prefix("(EngineCore pid=7)", "core.py:1510") + line for line in core.splitlines()),
            *("(EngineCore pid=7) " + line for line in core.splitlines()),
        ]
    )


@pytest.mark.parametrize("raised", [CORE_FAILED, CORE_DIED])
@pytest.mark.parametrize(
    ("error", "kind", "lasting"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", FailureKind.OUT_OF_MEMORY, False),
        (f"ValueError: {NO_CACHE}", FailureKind.OUT_OF_MEMORY, True),
        (f"ValueError: {NEIGHBOUR}", FailureKind.ENGINE, False),
        ("RuntimeError: NaNs detected in logits: {'1': 547}", FailureKind.INVALID_OUTPUT, False),
        ("AssertionError", FailureKind.ENGINE, False),
        ("RuntimeError: NCCL error: unhandled system error", FailureKind.ENGINE, False),
    ],
)
def test_what_killed_another_process_of_the_engine_is_read_in_the_log(
    raised: str, error: str, kind: FailureKind, lasting: bool
) -> None:
    failure = classify(RuntimeError(raised), "org/model", log=logged(error))
    assert (failure.kind, failure.lasting) == (kind, lasting)
    assert error[:60] in failure.sentence


def test_weights_that_fail_in_another_process_are_the_weights_fault() -> None:
    log = logged("AssertionError").replace("in init", "in load_weights")
    assert classify(RuntimeError(CORE_FAILED), "org/model", log=log).kind is FailureKind.WEIGHTS


@pytest.mark.parametrize("log", ["", INFO])
def test_a_log_without_an_exception_leaves_it_an_engine_s_failure(log: str) -> None:
    assert classify(RuntimeError(CORE_FAILED), "org/model", log=log).kind is FailureKind.ENGINE


def test_the_log_is_the_stage_s_own_since_it_began(tmp_path: Path) -> None:
    program = f"""
import sys
from workers.engine.failures import classify
sys.stderr.write(sys.argv[1] + "\\n")
sys.stderr.flush()
print(classify(RuntimeError({CORE_FAILED!r}), "org/model").kind.value)
"""
    for error, kind in (("MemoryError", "out_of_memory"), ("ValueError: NaNs detected in logits", "invalid_output")):
        with (tmp_path / "log").open("ab") as log:
            told = subprocess.run(
                [sys.executable, "-c", program, error], stdout=subprocess.PIPE, stderr=log, check=True
            )
        assert told.stdout.decode().split() == [kind]


def test_the_sentence_keeps_the_telling_line_of_a_long_message() -> None:
    error = ValueError("2 validation errors for ModelConfig\n  architectures ['X'] are not supported\n  see the docs")
    sentence = classify(error, "org/model").sentence
    assert "architectures ['X'] are not supported" in sentence
    assert "validation errors" not in sentence


def test_an_assertion_while_weights_are_loaded_is_the_weights_fault() -> None:
    def load_weights() -> None:
        raise AssertionError

    with pytest.raises(AssertionError) as caught:
        load_weights()
    assert classify(caught.value, "org/model").kind is FailureKind.WEIGHTS


def test_a_message_that_quotes_a_hostile_config_is_classified_in_a_moment() -> None:
    started = time.process_time()
    assert classify(ValueError("architecture dtype " * 200_000), "org/model").kind is FailureKind.ENGINE
    assert time.process_time() - started < 5
