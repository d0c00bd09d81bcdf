"""Reads what a canary needs of sheets and segments from the store; `workers.sheets` and `.segments` write them.

Only the fields that are needed, line by line: a sheet may be hundreds of megabytes unpacked.
"""

import hashlib
import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec
import zstandard

from orchestrator.artifacts import ArtifactStore
from orchestrator.canaries.drift import GENERATED, SCORED, Answer
from orchestrator.errors import EvalyardError
from orchestrator.wire import canonical_json, identity_digest

log = logging.getLogger(__name__)

SEGMENT_SUFFIX = ".jsonl.zst"
KINDS = {"loglikelihood": SCORED, "generate": GENERATED}
"""A request's kind as sheets have it, and what is called so here."""


class DamagedArtifact(EvalyardError):
    """A sheet or a segment cannot be read."""


class Instance(msgspec.Struct, frozen=True):
    task: str
    document: int
    index: int
    requests: list[list[str]]


class Request(msgspec.Struct, frozen=True):
    id: str
    kind: str
    context: list[int] = []
    continuation: list[int] = []
    prompt: list[int] = []
    max_tokens: int = 0
    sampling: dict[str, Any] = {}

    @property
    def length(self) -> int:
        """Tokens, those that it may generate included."""
        return len(self.context) + len(self.continuation) + len(self.prompt) + self.max_tokens

    @property
    def is_sampled(self) -> bool:
        """Drawn at random: its answer may be another one each time."""
        return bool(self.sampling.get("temperature"))


class _Id(msgspec.Struct, frozen=True):
    id: str


class _Response(msgspec.Struct, frozen=True):
    id: str
    kind: str
    logprob: float | None = None
    greedy: bool = False
    text: str | None = None


class _Header(msgspec.Struct, frozen=True):
    identity: str
    engine: dict[str, Any]


_instances = msgspec.json.Decoder(Instance)
_requests = msgspec.json.Decoder(Request)
_ids = msgspec.json.Decoder(_Id)
_responses = msgspec.json.Decoder(_Response)
_headers = msgspec.json.Decoder(_Header)


def read_instances(store: ArtifactStore, sheet: str) -> Iterator[Instance]:
    """Raises DamagedArtifact, ArtifactError."""
    yield from map(_instances.decode, _lines(store, f"{sheet}/instances.jsonl.zst"))


def read_requests(store: ArtifactStore, sheet: str, wanted: Collection[str]) -> Iterator[tuple[Request, bytes]]:
    """Each wanted request of a sheet, with its line as it is written. Raises DamagedArtifact, ArtifactError."""
    for line in _lines(store, f"{sheet}/requests.jsonl.zst"):
        if _ids.decode(line).id in wanted:
            yield _requests.decode(line), line


def read_answers(
    store: ArtifactStore, identity: Mapping[str, Any], wanted: Collection[str]
) -> tuple[dict[str, Answer], list[dict[str, Any]]]:
    """The answers of an identity to these requests, as a score takes them, and what computed them.

    Of two answers the first in name order counts. A segment that is damaged, or of another identity, counts as absent.

    Raises:
        ArtifactError: the store cannot be read.
    """
    digest = identity_digest(dict(identity))
    answers: dict[str, Answer] = {}
    engines: list[dict[str, Any]] = []
    for key in store.list(f"responses/{digest}"):
        if not key.endswith(SEGMENT_SUFFIX) or len(answers) == len(wanted):
            continue
        data = store.read_bytes(key)
        try:
            if not hashlib.sha256(data).hexdigest().startswith(key.removesuffix(SEGMENT_SUFFIX).rpartition("-")[2]):
                raise DamagedArtifact(f"Segment {key} is damaged.")
            first, *rest = _unpacked(data).splitlines()
            header = _headers.decode(first)
            found = [_responses.decode(line) for line in rest]
        except (DamagedArtifact, zstandard.ZstdError, msgspec.DecodeError, ValueError) as error:
            log.warning("segment_set_aside key=%s error=%s", key, error)
            continue
        used = [one for one in found if one.id in wanted and one.id not in answers] if header.identity == digest else []
        answers |= {one.id: Answer(one.logprob, one.greedy, one.text) for one in used}
        if used and header.engine not in engines:
            engines.append(header.engine)
    return answers, sorted(engines, key=canonical_json)


def pack_lines(lines: list[bytes]) -> bytes:
    """Lines as a sheet's file holds them."""
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(b"".join(line + b"\n" for line in lines))


def _unpacked(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def _lines(store: ArtifactStore, key: str) -> Iterator[bytes]:
    data = store.read_bytes(key)
    stream = zstandard.ZstdDecompressor().decompressobj()
    rest = b""
    try:
        for start in range(0, len(data), 1 << 16):
            *lines, rest = (rest + stream.decompress(data[start : start + (1 << 16)])).split(b"\n")
            yield from lines
    except zstandard.ZstdError as error:
        raise DamagedArtifact(f"{key} is damaged: {error}. Take another evaluation for the canary.") from error
    if rest or not stream.eof:
        raise DamagedArtifact(f"{key} is cut off. Take another evaluation for the canary.")
