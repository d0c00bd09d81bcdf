"""Where harness programs find and keep things that are not part of a job: shipped task files and a cache."""

import os
from pathlib import Path

import platformdirs

SHIPPED_TASKS = Path(__file__).parent / "tasks"


def cache() -> Path:
    """Folder for what is costly to make again and may be deleted at any time (`EVALYARD_CACHE` moves it)."""
    given = os.environ.get("EVALYARD_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("evalyard", appauthor=False))
