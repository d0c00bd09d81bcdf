"""Refuses a model's own Python code in this process, whichever library asks for it and with whatever options.

Every library is told `trust_remote_code=False` anyway; this holds even where one of them forgets to ask.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.wire import FailureKind
from workers.stage import StageFailure


def forbid(note: Callable[[StageFailure], object] = lambda failure: None) -> None:
    """From now on loading a model's code raises StageFailure; call it before anything of transformers is imported.

    `note` hears of each refusal, for callers whose libraries swallow exceptions.
    """

    def refuse(name: str, module_file: str, *args: Any, **kwargs: Any) -> NoReturn:
        failure = StageFailure(
            FailureKind.REMOTE_CODE,
            f"{Path(str(name)).name} only loads with its own Python code ({module_file}), which is never run here. "
            "Use a model whose code is part of transformers.",
        )
        note(failure)
        raise failure

    dynamic: Any = importlib.import_module("transformers.dynamic_module_utils")
    # Every way to a model's own code goes through this function, whoever calls with whatever trust_remote_code.
    dynamic.get_cached_module_file = refuse
