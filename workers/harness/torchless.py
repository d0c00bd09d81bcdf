"""Hides torch from a harness process, so that a start takes seconds less and hosts with and without torch behave alike.

Neither stage needs it. Of lm-eval's 14,000 tasks two import it, and those fail with a sentence.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

HIDDEN = ("torch", "torchvision", "torchaudio")


class _Without(MetaPathFinder):
    """Another finder that does not find torch; libraries that ask first (`find_spec`) are told there is none."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.split(".")[0] in HIDDEN:
            return None
        found: ModuleSpec | None = self._finder.find_spec(fullname, path, target)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def hide() -> None:
    """Hide torch from every import to come; without effect where torch is imported already."""
    if "torch" not in sys.modules and not any(isinstance(finder, _Without) for finder in sys.meta_path):
        sys.meta_path[:] = [_Without(finder) for finder in sys.meta_path if hasattr(finder, "find_spec")]
