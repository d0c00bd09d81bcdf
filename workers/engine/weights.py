"""What can be said of a model folder before an engine loads it: config, vocabulary, whole safetensors.

Reads JSON and safetensors headers only. Never opens a pickle, never runs anything of the repository.
"""

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.footprint import text_config
from orchestrator.wire import FailureKind
from workers.stage import StageFailure

_MOST_HEADER_BYTES = 100_000_000

_SIBLINGS = (("gate_proj", "up_proj"), ("q_proj", "k_proj", "v_proj"))
"""Projections that come together: who has one of them has all. The first stands alone where layers share keys."""


class _Damaged(Exception):
    """A safetensors file is not whole; the message says how it shows."""


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
    except (ValueError, RecursionError) as error:
        raise StageFailure(FailureKind.CONFIG, f"config.json of {folder.name} is not valid JSON: {error}.") from error
    if not isinstance(config, dict):
        raise StageFailure(FailureKind.CONFIG, f"config.json of {folder.name} is not a JSON object.")
    return config


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
    promised, files = _weight_files(folder)
    tensors: dict[str, str] = {}
    for file in files:
        tensors |= dict.fromkeys(read_shapes(file), file.name)
    for name in missing_tensors(promised, tensors, config=read_config(folder)):
        raise StageFailure(
            FailureKind.WEIGHTS, f"The weights of {folder.name} lack the tensor {name}. Upload the complete weights."
        )
    return sum(file.stat().st_size for file in files)


def read_all_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all the folder's weights by name."""
    _, files = _weight_files(folder)
    return {name: shape for file in files for name, shape in read_shapes(file).items()}


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a safetensors file's tensors by name, from its header alone.

    Raises:
        StageFailure: there is no such file, or it is cut off or damaged.
    """
    if not file.is_file():
        raise StageFailure(
            FailureKind.WEIGHTS, f"Weights file {file.name} is named in the index but missing. Upload it."
        )
    try:
        return _shapes(file)
    except _Damaged as fault:
        raise StageFailure(
            FailureKind.WEIGHTS, f"Weights file {file.name} is damaged: {fault}. Upload the file again."
        ) from fault


def missing_tensors(promised: Mapping[str, str], tensors: Mapping[str, str], *, config: dict[str, Any]) -> list[str]:
    """Tensors that the index promises or their siblings ask for, and that no file holds.

    Engines merge some siblings into one parameter and do not notice when a part of it is never filled.
    """
    missing = [name for name, file in promised.items() if tensors.get(name) != file]
    shared_keys = bool(text_config(config).get("num_kv_shared_layers"))
    for siblings in _SIBLINGS[:1] if shared_keys else _SIBLINGS:
        pattern = re.compile(rf"(.*\.)({'|'.join(siblings)})(\.weight)")
        for name in tensors:
            if found := pattern.fullmatch(name):
                family = (found[1] + sibling + found[3] for sibling in siblings)
                missing += [other for other in family if other not in tensors]
    return sorted(set(missing))


def _weight_files(folder: Path) -> tuple[dict[str, str], list[Path]]:
    """What the index promises, by tensor, and the files that hold the weights."""
    index = folder / "model.safetensors.index.json"
    promised = _indexed(index) if index.is_file() else {}
    files = sorted({folder / name for name in promised.values()}) or sorted(folder.glob("*.safetensors"))
    if not files:
        raise StageFailure(
            FailureKind.WEIGHTS,
            f"The model folder {folder.name} has no safetensors weights, and no other format is loaded. Convert them "
            "with save_pretrained(safe_serialization=True).",
        )
    return promised, files


def _indexed(index: Path) -> dict[str, str]:
    """Tensor name to file name, as the index has them."""
    try:
        promised = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise StageFailure(
            FailureKind.WEIGHTS, f"{index.name} cannot be read: {error}. Save the model again."
        ) from error
    for name in promised.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise StageFailure(FailureKind.WEIGHTS, f"{index.name} points outside its folder: {name!r}.")
    return promised


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Raises _Damaged when header and length do not fit."""
    size = file.stat().st_size
    with file.open("rb") as data:
        prefix = data.read(8)
        if len(prefix) < 8:
            raise _Damaged("it is shorter than its header")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(size - 8, _MOST_HEADER_BYTES):
            raise _Damaged("its header is cut off or is no safetensors header")
        try:
            header = json.loads(data.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
            shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise _Damaged("its header is no safetensors header") from error
    expected = 8 + length + end
    if size != expected:
        raise _Damaged(f"it has {size} bytes where its header says {expected}")
    return shapes
