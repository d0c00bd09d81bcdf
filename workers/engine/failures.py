"""Names what an engine's exception means for the submitter. Engines raise few classes of their own, so words decide.

The first rule that fits counts; what fits none is the engine's own failure, which is tried again.
"""

import re
import traceback

from orchestrator.wire import FailureKind
from workers.stage import StageFailure

MOST_TEXT = 20_000

MOST_LINE = 160
"""Characters of the engine's own words in a sentence; the log has the rest."""

_BAD_WEIGHTS = "has weights that are incomplete, damaged or of another shape than its config says"

_RULES: tuple[tuple[FailureKind, str, str], ...] = (
    (
        FailureKind.OUT_OF_MEMORY,
        r"out of memory|outofmemory|can't allocate memory|cannot allocate memory|memoryerror|std::bad_alloc"
        r"|no available memory for the cache|available kv cache memory|less than (desired|requested) .*memory",
        "does not fit into this worker's memory. It needs a larger worker, a smaller precision or a smaller model",
    ),
    (
        FailureKind.INVALID_OUTPUT,
        r"nans? detected in logits|probability tensor contains either",
        "computes NaN. Its weights are broken, or overflow at this precision: check them, or submit it as float32",
    ),
    (
        FailureKind.REMOTE_CODE,
        r"trust_remote_code|remote code|execute the .*file in that repo",
        "needs Python code of its own repository, which is never run. Use a revision that loads without remote code",
    ),
    (
        FailureKind.ARCHITECTURE,
        r"architectures? .*(not supported|failed to be inspected|no vllm implementation)|head.?size"
        r"|does not recognize this architecture|unrecognized configuration class|unrecognized model in",
        "has an architecture that the installed engine cannot run",
    ),
    (
        FailureKind.PRECISION,
        r"bitsandbytes|quantiz|not supported for quantization|dtype .*not supported|gptq",
        "cannot be loaded at this precision by the installed engine. Choose bfloat16, float16 or float32",
    ),
    (
        FailureKind.WEIGHTS,
        r"safetensor|model weights|size mismatch|no module or parameter named|not initialized from checkpoint"
        r"|no file named|ignore_mismatched_sizes|meta tensor",
        _BAD_WEIGHTS,
    ),
    (
        FailureKind.TOKENIZER,
        r"tokenizer",
        "has a tokenizer that does not load. Check tokenizer.json and tokenizer_config.json",
    ),
)


def classify(error: BaseException, model: str) -> StageFailure:
    """The failure that an exception of an engine stands for, with a sentence that keeps the telling line."""
    text = f"{type(error).__name__}: {error}"
    if len(text) > MOST_TEXT:  # may quote a whole config, and the rules take long to fail on such a text
        text = text[: MOST_TEXT // 2] + "\n" + text[-MOST_TEXT // 2 :]
    for kind, pattern, meaning in _RULES:
        if found := re.search(pattern, text, re.IGNORECASE | re.DOTALL):
            return StageFailure(kind, f"Model {model} {meaning}. ({_line_at(text, found.start())})")
    if any("load_weights" in frame.name for frame in traceback.extract_tb(error.__traceback__)):
        return StageFailure(FailureKind.WEIGHTS, f"Model {model} {_BAD_WEIGHTS}. ({_line_at(text, 0)})")
    return StageFailure(FailureKind.ENGINE, f"The engine failed. {_line_at(text, 0)}")


def _line_at(text: str, position: int) -> str:
    """The line of a long message that says what is wrong."""
    line = text[text.rfind("\n", 0, position) + 1 :].partition("\n")[0].strip()
    return line if len(line) <= MOST_LINE else line[: MOST_LINE - 1] + "…"
