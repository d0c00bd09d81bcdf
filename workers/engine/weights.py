"""What can be said of a model folder before an engine loads it: config, vocabulary, whole safetensors.

Reads JSON and safetensors headers only. Never opens a pickle, never runs anything of the repository.
"""

import json
import struct
from pathlib import Path
from typing import Any

from orchestrator.wire import FailureKind
from workers.stage import StageFailure

_MOST_HEADER_BYTES = 100_000_000


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of the folder.

    Raises:
        StageFailure: there is none, or it is not a JSON object.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as missing:
        raise StageFailure(
            FailureKind.CONFIG, f"The model folder {folder.name} has no config.json. Add the model's configuration."
        ) from missing
    except ValueError as error:
        raise StageFailure(FailureKind.CONFIG, f"config.json of {folder.name} is not valid JSON: {error}.") from error
    if not isinstance(config, dict):
        raise StageFailure(FailureKind.CONFIG, f"config.json of {folder.name} is not a JSON object.")
    return config


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part that describes the language model: multimodal repositories keep it under `text_config`."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def vocabulary_size(folder: Path) -> int | None:
    """Rows of the embeddings by the config, or None where it does not tell."""
    if not (folder / "config.json").is_file():
        return None
    config = read_config(folder)
    size = text_config(config).get("vocab_size", config.get("vocab_size"))
    return size if isinstance(size, int) else None


def check_weights(folder: Path) -> int:
    """Bytes of the folder's safetensors files, after making sure that they are all there and whole.

    Raises:
        StageFailure: no safetensors, a file of the index is missing, or a file is cut off or damaged.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = [folder / name for name in sorted(_indexed(index))]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise StageFailure(
            FailureKind.WEIGHTS,
            f"The model folder {folder.name} has no safetensors weights, and no other format is loaded. Convert them "
            "with save_pretrained(safe_serialization=True).",
        )
    for file in files:
        if not file.is_file():
            raise StageFailure(
                FailureKind.WEIGHTS, f"Weights file {file.name} is named in the index but missing. Upload it."
            )
        if fault := _fault(file):
            raise StageFailure(
                FailureKind.WEIGHTS, f"Weights file {file.name} is damaged: {fault}. Upload the file again."
            )
    return sum(file.stat().st_size for file in files)


def _indexed(index: Path) -> set[str]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise StageFailure(
            FailureKind.WEIGHTS, f"{index.name} cannot be read: {error}. Save the model again."
        ) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise StageFailure(FailureKind.WEIGHTS, f"{index.name} points outside its folder: {name!r}.")
    return names


def _fault(file: Path) -> str | None:
    """What is wrong with a safetensors file by its header and length, or None."""
    size = file.stat().st_size
    with file.open("rb") as data:
        prefix = data.read(8)
        if len(prefix) < 8:
            return "it is shorter than its header"
        (length,) = struct.unpack("<Q", prefix)
        if length > min(size - 8, _MOST_HEADER_BYTES):
            return "its header is cut off or is no safetensors header"
        try:
            header = json.loads(data.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return "its header is no safetensors header"
    expected = 8 + length + max(ends, default=0)
    return None if size == expected else f"it has {size} bytes where its header says {expected}"
