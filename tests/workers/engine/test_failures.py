import time

import pytest

from orchestrator.wire import FailureKind
from workers.engine.failures import classify


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), FailureKind.OUT_OF_MEMORY),
        (MemoryError(), FailureKind.OUT_OF_MEMORY),
        (ValueError("No available memory for the cache blocks."), FailureKind.OUT_OF_MEMORY),
        (ValueError("... (0.2 GiB) is less than desired CPU memory utilization"), FailureKind.OUT_OF_MEMORY),
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
    started = time.monotonic()
    assert classify(ValueError("architecture dtype " * 200_000), "org/model").kind is FailureKind.ENGINE
    assert time.monotonic() - started < 5
