"""The request sheet: what a model is asked, as token ids, with a hash for each request.

A sheet is a folder that prepare writes once:

    sheet.json              SheetInfo: counts, rules, versions, revisions, hashes
    requests.jsonl.zst      one distinct request a line; all that an engine host needs
    instances.jsonl.zst     one lm-eval instance a line: text for people, and the hashes that answer it
    documents.jsonl.zst     the processed documents in order; score uses these, never the dataset again

A request's hash covers exactly what the engine is given, so equal requests share one response.
"""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import zstandard

FORMAT = 1


READ_BYTES = 1 << 16


class DamagedSheet(Exception):
    """A file of a sheet is not as it was written: fewer requests or documents must never become a score."""


class Loglikelihood(msgspec.Struct, frozen=True, tag="loglikelihood", tag_field="kind"):
    """log p(continuation | context), after truncation; rolling windows are written as these too."""

    id: str
    context: list[int]
    continuation: list[int]

    @property
    def length(self) -> int:
        return len(self.context) + len(self.continuation)


class Generate(msgspec.Struct, frozen=True, tag="generate", tag_field="kind"):
    """Generate after `prompt` until a stop string, an end token or `max_tokens`."""

    id: str
    prompt: list[int]
    max_tokens: int
    stop: list[str] = []
    """Stop strings, the end-of-sequence text included, as lm-eval's back end would send them."""
    sampling: dict[str, Any] = {}
    """Normalised generation arguments as lm-eval's back end would send them: `temperature`, `top_p`, ….
    Empty or temperature 0 is greedy."""
    seed: int | None = None
    """For sampled requests only; derived from the request and the repeat."""

    @property
    def length(self) -> int:
        return len(self.prompt) + self.max_tokens


Request = Loglikelihood | Generate


class Instance(msgspec.Struct, frozen=True):
    """One lm-eval instance, kept so that score can rebuild it without the dataset or the tokenizer."""

    task: str
    document: int
    """lm-eval's doc_id within the task."""
    index: int
    """lm-eval's Instance.idx: which choice of the document."""
    request_type: str
    """`loglikelihood`, `loglikelihood_rolling`, `multiple_choice`, `generate_until` as lm-eval names it."""
    arguments: list[Any]
    """lm-eval's Instance.arguments: text, for people and for the samples file."""
    requests: list[list[str]]
    """For each repeat, the hashes of the requests that answer it (several for rolling windows)."""


class Document(msgspec.Struct, frozen=True):
    task: str
    document: int
    content: Any


class SheetInfo(msgspec.Struct, frozen=True):
    """What sheet.json holds. `provenance` goes with each score that is made from this sheet."""

    benchmark: str
    rules: str
    requests: int
    instances: int
    documents: int
    truncated: int
    """Requests that lost tokens to the context limit."""
    longest: int
    """Tokens of the longest request, generated ones included."""
    identity: dict[str, Any]
    """The model's part of the identity: see `orchestrator.wire.InferWork.identity`."""
    plan: dict[str, Any]
    """What score needs to call lm-eval with the same settings (shots, seeds, template, limit, tasks)."""
    provenance: dict[str, Any]
    format: int = FORMAT
    generations: int | None = None
    """Requests that generate text; None in a sheet of an earlier release."""


def loglikelihood_id(context: list[int], continuation: list[int]) -> str:
    """Address of a log-likelihood request: 32 hexadecimal digits of a SHA-256 over both id lists."""
    digest = hashlib.sha256(b"loglikelihood\0" + len(context).to_bytes(4, "little"))
    digest.update(_bytes(context))
    digest.update(_bytes(continuation))
    return digest.hexdigest()[:32]


def generate_id(
    prompt: list[int], *, max_tokens: int, stop: list[str], sampling: dict[str, Any], seed: int | None
) -> str:
    """Address of a generation: 32 hexadecimal digits of a SHA-256 over the ids and every argument sent."""
    arguments = {"max_tokens": max_tokens, "stop": stop, "sampling": sampling, "seed": seed}
    digest = hashlib.sha256(b"generate\0")
    digest.update(json.dumps(arguments, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
    digest.update(b"\0" + _bytes(prompt))
    return digest.hexdigest()[:32]


def _bytes(ids: list[int]) -> bytes:
    return array("I", ids).tobytes()


def write_lines(path: Path, records: Iterable[Any]) -> int:
    """Write records as zstd-compressed JSON lines and return how many; the file appears whole or not at all."""
    encoder = msgspec.json.Encoder()
    count = 0
    temporary = path.with_name(path.name + ".tmp")
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    with temporary.open("wb") as raw, compressor.stream_writer(raw, closefd=False) as out:
        for record in records:
            out.write(encoder.encode(record) + b"\n")
            count += 1
    temporary.replace(path)
    return count


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a zstd-compressed file, without their ends.

    Raises:
        DamagedSheet: the file is cut off or changed; lines before that place may have been given.
    """
    stream = zstandard.ZstdDecompressor().decompressobj()
    rest = b""
    with path.open("rb") as raw:
        try:
            while chunk := raw.read(READ_BYTES):
                *lines, rest = (rest + stream.decompress(chunk)).split(b"\n")
                yield from lines
        except zstandard.ZstdError as error:
            raise DamagedSheet(f"{path.name} is damaged: {error}. Prepare the benchmark again.") from error
    # The library's own reader takes a file that is cut off for one that ends.
    if rest or not stream.eof:
        raise DamagedSheet(f"{path.name} is cut off. Prepare the benchmark again.")


def write_info(folder: Path, info: SheetInfo) -> None:
    (folder / "sheet.json").write_bytes(msgspec.json.format(msgspec.json.encode(info), indent=2))


def read_info(folder: Path) -> SheetInfo:
    return msgspec.json.decode((folder / "sheet.json").read_bytes(), type=SheetInfo)


def read_requests(folder: Path) -> Iterator[Request]:
    decoder = msgspec.json.Decoder(Request)
    return map(decoder.decode, read_lines(folder / "requests.jsonl.zst"))


def read_instances(folder: Path) -> Iterator[Instance]:
    decoder = msgspec.json.Decoder(Instance)
    return map(decoder.decode, read_lines(folder / "instances.jsonl.zst"))


def read_documents(folder: Path) -> Iterator[Document]:
    decoder = msgspec.json.Decoder(Document)
    return map(decoder.decode, read_lines(folder / "documents.jsonl.zst"))


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of a folder's files: the sheet's digest."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
