"""Sheets and work for the tests of the infer stage: only what a test cares about."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.wire import EngineFamily, InferWork, Model, Precision
from workers import segments
from workers.sheets import (
    Generate,
    Loglikelihood,
    Request,
    SheetInfo,
    generate_id,
    loglikelihood_id,
    write_info,
    write_lines,
)

IDENTITY: dict[str, Any] = {"weights": "sha256-0", "dtype": "float32", "context_limit": 2048}


def score(context: Sequence[int], continuation: Sequence[int]) -> Loglikelihood:
    return Loglikelihood(loglikelihood_id([*context], [*continuation]), [*context], [*continuation])


def generate(prompt: Sequence[int], *, stop: Sequence[str] = (), max_tokens: int = 8, **sampling: Any) -> Generate:
    seed = sampling.pop("seed", None)
    arguments: dict[str, Any] = {"max_tokens": max_tokens, "stop": [*stop], "sampling": sampling, "seed": seed}
    return Generate(generate_id([*prompt], **arguments), [*prompt], **arguments)


def letter_choice(document: int, *, context: int = 12) -> list[Request]:
    """Four choices of one token after a context of their own."""
    ids = [100 + document * 7 % 389, *range(20, 19 + context)]
    ids[1] = 30 + document // 389
    return [score(ids, [letter]) for letter in (3, 4, 5, 6)]


def write_sheet(folder: Path, requests: Sequence[Request], *, benchmark: str = "A") -> Path:
    folder.mkdir(parents=True)
    write_lines(folder / "requests.jsonl.zst", requests)
    write_lines(folder / "instances.jsonl.zst", [])
    write_lines(folder / "documents.jsonl.zst", [])
    info = SheetInfo(
        benchmark=benchmark,
        rules="vllm",
        requests=len(requests),
        instances=0,
        documents=0,
        truncated=0,
        longest=max((request.length for request in requests), default=0),
        identity=IDENTITY,
        plan={},
        provenance={},
        generations=sum(isinstance(request, Generate) for request in requests),
    )
    write_info(folder, info)
    return folder


def infer_work(sheets: dict[str, Path], **fields: Any) -> InferWork:
    defaults: dict[str, Any] = {
        "model": Model(name="org/tiny", revision="sha256-0", precision=Precision.FLOAT32),
        "identity": IDENTITY,
        "engine": EngineFamily.SCRIPTED,
        "sheets": {name: str(folder) for name, folder in sheets.items()},
        "attempt": "attempt-1",
    }
    return InferWork(**defaults | fields)


def responses_in(folder: Path) -> list[segments.Response]:
    """Every response of a folder's segments, duplicates included."""
    return [response for path in sorted(folder.glob("*.jsonl.zst")) for response in segments.read(path)[1]]
