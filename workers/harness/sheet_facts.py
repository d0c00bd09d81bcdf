"""The small file beside a sheet that tells it from another one: `facts.zst`, read by `orchestrator.reruns.facts`.

zstd of a line of JSON and then, for each task in the line's order, its requests: 20 bytes each, 16 of the address and
4 of the tokens (little endian), in order of addresses. Says nothing about any response.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zstandard

from orchestrator.wire import canonical_json

FACTS_FILE = "facts.zst"
FORMAT = 1

CLASS_KEYS = (
    "rules", "tokenizer", "context_limit", "chat_template_sha", "fewshot_as_multiturn", "system_instruction", "seeds",
    "limit",
)  # fmt: skip
"""Of a sheet's provenance: all that requests depend on beside benchmark, harness and datasets."""


def sheet_class(
    provenance: Mapping[str, Any], *, bos: int | None, adds_bos: bool, day: str | None, judged_by: str
) -> str:
    """Digest of everything that a sheet depends on besides the benchmark's definition and the harness's version.

    `judged_by` is of the code and packages that judge its answers: one version of the harness may have been made at
    different times, with different packages, and what is true of the scores of one is not true of the other's.
    `day` is today's date for a chat template that prints it, which asks something else tomorrow.
    """
    datasets = sorted(
        {
            (str(task["dataset"]["path"]), str(task["dataset"]["name"]), str(task["dataset"].get("revision")))
            for task in provenance["tasks"].values()
        }
    )
    parts = {key: provenance[key] for key in CLASS_KEYS} | {"bos": [bos, adds_bos], "day": day, "datasets": datasets}
    parts |= {"judged_by": judged_by}
    return hashlib.sha256(canonical_json(parts)).hexdigest()[:32]


def write_facts(
    folder: Path,
    header: Mapping[str, Any],
    *,
    tasks: Mapping[str, dict[str, Any]],
    requests: Mapping[str, Mapping[str, int]],
) -> None:
    """Write the file: `header`, what is known of each task, and the tokens of each task's requests by their hashes."""
    facts = {name: {**task, "requests": len(requests[name])} for name, task in tasks.items()}
    line = json.dumps({"format": FORMAT, **header, "tasks": facts}, separators=(",", ":"), allow_nan=False)
    entries = b"".join(
        bytes.fromhex(address) + tokens.to_bytes(4, "little")
        for name in facts
        for address, tokens in sorted(requests[name].items())
    )
    packed = zstandard.ZstdCompressor(level=6, write_checksum=True).compress(line.encode() + b"\n" + entries)
    (folder / FACTS_FILE).write_bytes(packed)


class Digest:
    """A digest over records, one after the other."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, record: bytes) -> None:
        self._hash.update(len(record).to_bytes(8, "little") + record)

    def __str__(self) -> str:
        return self._hash.hexdigest()
