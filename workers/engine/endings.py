"""Whether a model's generations can end: its end-of-sequence ids are looked at before the engine starts.

Engines take an id that no row of the vocabulary has without a word, and every answer then runs to its limit. Reads JSON
only, and asks for nothing where no sheet generates.
"""

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from orchestrator.footprint import text_config
from orchestrator.wire import FailureKind
from workers.engine.weights import read_config, vocabulary_size
from workers.sheets import Generate, read_requests
from workers.stage import StageFailure


def refuse_endless(folder: Path, sheets: Iterable[Path]) -> None:
    """Look at the model in `folder` if one of the sheets generates, by its first request.

    Raises:
        StageFailure: CONFIG, when no end token is in the vocabulary, or there is none and no stop string either.
    """
    firsts = [request for sheet in sheets for request in islice(read_requests(sheet), 1)]
    generations = [request for request in firsts if isinstance(request, Generate)]
    if not generations or not (folder / "config.json").is_file():
        return
    ids, size = end_tokens(folder), vocabulary_size(folder)
    if ids and size is not None and not any(0 <= token < size for token in ids):
        raise StageFailure(
            FailureKind.CONFIG,
            f"The model's end-of-sequence token is {', '.join(map(str, ids))}, but it has embeddings for {size} tokens "
            "only: its answers would never end. Correct eos_token_id in config.json and generation_config.json.",
        )
    if not ids and not _tokenizer_names_one(folder) and any(not request.stop for request in generations):
        raise StageFailure(
            FailureKind.CONFIG,
            "The model names no end-of-sequence token, and text is asked of it that no stop string ends. Add "
            "eos_token_id to config.json and generation_config.json.",
        )


def end_tokens(folder: Path) -> list[int]:
    """The ids that end a generation, by generation_config.json or else config.json."""
    config = read_config(folder)
    for source in (_json(folder / "generation_config.json"), config, text_config(config)):
        found = source.get("eos_token_id")
        if ids := [token for token in (found if isinstance(found, list) else [found]) if isinstance(token, int)]:
            return ids
    return []


def _tokenizer_names_one(folder: Path) -> bool:
    return bool(_json(folder / "tokenizer_config.json").get("eos_token"))


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where it is missing or no object: what needs the file complains about that."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
