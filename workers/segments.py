"""Sealed segments: small immutable files of responses, the only form in which an answer is kept.

A segment is zstd-compressed JSON lines: a `Header`, then one `Response` a line. It appears whole or not at all
(temporary name, fsync, rename) and its sealed name ends with the first 16 digits of its SHA-256, so damage shows:
`000003-1f2e….jsonl.zst`. Among duplicates the first file in name order counts.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import zstandard

FORMAT = 1


class Header(msgspec.Struct, frozen=True):
    identity: str
    """`orchestrator.wire.identity_digest` of the model identity that answered."""
    attempt: str
    engine: dict[str, Any]
    """`orchestrator.wire.EngineInfo` as JSON."""
    settings: dict[str, Any] = {}
    format: int = FORMAT


class Scored(msgspec.Struct, frozen=True, tag="loglikelihood", tag_field="kind"):
    id: str
    logprob: float
    """Sum over the continuation's tokens, natural logarithm."""
    greedy: bool
    """Whether every continuation token is the engine's first choice."""


class Generated(msgspec.Struct, frozen=True, tag="generate", tag_field="kind"):
    """Raw, as the engine gave it: stop strings are already left out by the engine, nothing else is cut."""

    id: str
    text: str
    tokens: list[int]
    finish_reason: str


Response = Scored | Generated


class DamagedSegment(Exception):
    """Segment {name} is damaged: its bytes do not match its digest."""


def seal(folder: Path, number: int, header: Header, responses: Iterable[Response]) -> Path:
    """Write one segment into `folder` and return its final path; it survives a crash right after."""
    encoder = msgspec.json.Encoder()
    lines = b"\n".join(encoder.encode(record) for record in (header, *responses))
    data = zstandard.ZstdCompressor(level=3).compress(lines + b"\n")
    path = folder / f"{number:06d}-{hashlib.sha256(data).hexdigest()[:16]}.jsonl.zst"
    temporary = folder / f".{path.name}.tmp"
    with temporary.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return path


def read(path: Path) -> tuple[Header, list[Response]]:
    """Header and responses of a segment.

    Raises:
        DamagedSegment: the bytes do not match the digest in the name.
    """
    data = path.read_bytes()
    expected = path.name.removesuffix(".jsonl.zst").rsplit("-", 1)[-1]
    if hashlib.sha256(data).hexdigest()[:16] != expected:
        raise DamagedSegment(f"Segment {path.name} is damaged: its bytes do not match its digest.")
    first, *rest = zstandard.ZstdDecompressor().decompressobj().decompress(data).splitlines()
    decoder = msgspec.json.Decoder(Response)
    return msgspec.json.decode(first, type=Header), [decoder.decode(line) for line in rest]
