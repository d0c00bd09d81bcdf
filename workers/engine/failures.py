"""Names what an engine's exception means for the submitter. Engines raise few classes of their own, so words decide.

The first rule that fits counts; what fits none is the engine's own failure, which is tried again. An engine on several
GPUs computes in processes of its own, and its exception here only says that one of them died: then its log tells why.
"""

import os
import re
import stat
import traceback
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from orchestrator.wire import FailureKind
from workers.stage import StageFailure, disk_trouble

MOST_TEXT = 20_000

MOST_LINE = 160
"""Characters of the engine's own words in a sentence; the log has the rest."""

_BAD_WEIGHTS = "has weights that are incomplete, damaged or of another shape than its config says"


@dataclass(frozen=True)
class _Rule:
    kind: FailureKind
    pattern: str
    meaning: str
    lasting: bool = False


_RULES: tuple[_Rule, ...] = (
    _Rule(
        FailureKind.ENGINE,
        r"failed to find c compiler|python\.h: no such file"
        r"|command .{0,80}(?:gcc|clang|/cc)\b.{0,2000}returned non-zero exit status",
        "was not loaded, as the engine compiles its kernels and this worker's host has no C compiler that works, or "
        "lacks Python's header files. Install both there, on Debian by apt-get install gcc python3-dev",
        lasting=True,
    ),
    _Rule(
        FailureKind.ENGINE,
        r"is less than desired [GC]PU memory utilization|error in memory profiling",
        "was not loaded, as another program holds memory of this worker's device. Retry once that is free, or give the "
        "engine a smaller share of it (gpu_memory_utilization)",
    ),
    _Rule(
        FailureKind.OUT_OF_MEMORY,
        r"no available memory for the cache|larger than the available kv cache",
        "leaves too little of this worker's memory for the engine's cache, which computing less at a time does not "
        "mend. It needs a worker with more or larger GPUs (or more memory), or a smaller precision",
        lasting=True,
    ),
    _Rule(
        FailureKind.OUT_OF_MEMORY,
        r"out of memory|outofmemory|can't allocate memory|cannot allocate memory|memoryerror|std::bad_alloc"
        r"|less than requested memory",
        "does not fit into this worker's memory. It needs a larger worker, a smaller precision or a smaller model",
    ),
    _Rule(
        FailureKind.INVALID_OUTPUT,
        r"nans? detected in logits|probability tensor contains either",
        "computes NaN. Its weights are broken, or overflow at this precision: check them, or submit it as float32",
    ),
    _Rule(
        FailureKind.REMOTE_CODE,
        r"trust_remote_code|remote code|execute the .*file in that repo",
        "needs Python code of its own repository, which is never run. Use a revision that loads without remote code",
    ),
    _Rule(
        FailureKind.ARCHITECTURE,
        r"architectures? .*(not supported|failed to be inspected|no vllm implementation)|head.?size"
        r"|does not recognize this architecture|unrecognized configuration class|unrecognized model in",
        "has an architecture that the installed engine cannot run",
    ),
    _Rule(
        FailureKind.PRECISION,
        r"bitsandbytes|quantiz|not supported for quantization|dtype .*not supported|gptq",
        "cannot be loaded at this precision by the installed engine. Choose bfloat16, float16 or float32",
    ),
    _Rule(
        FailureKind.WEIGHTS,
        r"safetensor|model weights|size mismatch|no module or parameter named|not initialized from checkpoint"
        r"|no file named|ignore_mismatched_sizes|meta tensor",
        _BAD_WEIGHTS,
    ),
    _Rule(
        FailureKind.TOKENIZER,
        r"tokenizer",
        "has a tokenizer that does not load. Check tokenizer.json and tokenizer_config.json",
    ),
)


_ELSEWHERE = re.compile(
    r"(engine core|workerproc|frontend process)\b.* (initialization failed|during engine core initialization)"
    r"|enginecore encountered an issue",
    re.IGNORECASE,
)
"""What vLLM raises here when the process that died was another one of its own."""

_LOGGED = re.compile(
    r"^(?:\([^()\n]* pid=\d+\) )?(?:[A-Z]+ [-\d]+ [:\d]+ \[[^]\n]*\] )?([A-Za-z_][\w.]*(?:Error|Exception)(?::.*)?)$",
    re.MULTILINE,
)
"""The line of a logged traceback that names its exception, behind vLLM's prefix or bare."""

MOST_LOG, MOST_LOGGED = 1 << 20, 40


def _log_size() -> int:
    found = os.fstat(2)
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


_LOG_START = _log_size()
"""Where the stage's log began: an earlier start of it may have failed of something else."""


def classify(error: BaseException, model: str, *, log: str | None = None) -> StageFailure:
    """The failure that an exception of an engine stands for, with a sentence that keeps the telling line.

    `log` is what the engine's processes wrote; by default this stage's own log, its standard error.
    """
    if (trouble := disk_trouble(error)) is not None:
        return trouble
    text = f"{type(error).__name__}: {error}"
    loading = any("load_weights" in frame.name for frame in traceback.extract_tb(error.__traceback__))
    if _ELSEWHERE.search(text[:MOST_TEXT]):
        log = _own_log() if log is None else log
        causes = [line for line in _LOGGED.findall(log) if not _ELSEWHERE.search(line)]
        if causes:
            text = "\n".join(line[:1000] for line in dict.fromkeys(causes[:MOST_LOGGED] + causes[-MOST_LOGGED:]))
            loading = ", in load_weights" in log
    if len(text) > MOST_TEXT:  # may quote a whole config, and the rules take long to fail on such a text
        text = text[: MOST_TEXT // 2] + "\n" + text[-MOST_TEXT // 2 :]
    for rule in _RULES:
        if found := re.search(rule.pattern, text, re.IGNORECASE | re.DOTALL):
            telling = _line_at(text, found.start())
            meaning = rule.meaning
            if rule.kind is FailureKind.ARCHITECTURE:
                meaning += _who_can(text)
            return StageFailure(rule.kind, f"Model {model} {meaning}. ({telling})", lasting=rule.lasting)
    if loading:
        return StageFailure(FailureKind.WEIGHTS, f"Model {model} {_BAD_WEIGHTS}. ({_line_at(text, 0)})")
    return StageFailure(FailureKind.ENGINE, f"The engine failed. {_line_at(text, 0)}")


def _who_can(text: str) -> str:
    """What is installed here, and which version can run the model, where the engine says it."""
    installed = []
    for name in ("vllm", "transformers"):
        with suppress(metadata.PackageNotFoundError):
            installed.append(f"{name} {metadata.version(name)}")
    here = f": {' with '.join(installed)}" if installed else ""
    last = re.search(r"in vLLM until v?(\d[\d.]*\d)", text)
    return f"{here}. vLLM {last[1]} was the last that could" if last else f"{here}. A newer version may"


def _own_log() -> str:
    """What this stage and its processes wrote to standard error so far, if that is a file."""
    size = _log_size()
    if size <= _LOG_START:
        return ""
    try:
        with Path("/proc/self/fd/2").open("rb") as file:
            file.seek(max(_LOG_START, size - MOST_LOG))
            return file.read(MOST_LOG).decode(errors="replace")
    except OSError:
        return ""


def _line_at(text: str, position: int) -> str:
    """The line of a long message that says what is wrong."""
    line = text[text.rfind("\n", 0, position) + 1 :].partition("\n")[0].strip()
    return line if len(line) <= MOST_LINE else line[: MOST_LINE - 1] + "…"
