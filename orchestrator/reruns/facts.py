"""What is compared of a sheet: one small file beside it, so that a plan reads no whole sheet.

    facts.zst    zstd of a line of JSON and then, for each task in the line's order, its requests: 20 bytes each,
                 16 of the address and 4 of the tokens (little endian), in order of addresses

`workers.harness.sheet_facts` writes it. Nothing is decided here.
"""

import json
import struct
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import zstandard

FACTS_FILE = "facts.zst"
FORMAT = 1

ADDRESS_BYTES = 16
ENTRY_BYTES = ADDRESS_BYTES + 4
MOST_BYTES = 1 << 30
"""A file that unpacks to more is damaged or hostile: 50 million requests."""


ENTRY = struct.Struct(f"<{ADDRESS_BYTES}sI")


class DamagedFacts(Exception):
    """A facts file is not as it was written."""


@dataclass(frozen=True)
class Scoring:
    """How a task judges answers, as digests: equal ones judge alike."""

    code: str
    """Of its filters, metrics, aggregations and process_results: configuration and source of what they name."""
    core: str
    """Of lm-eval's own code that they go through."""
    packages: Mapping[str, str]
    """Versions of the third-party packages that the task's code imports."""
    probe: str | None
    """Of what it made of made-up answers to its own documents; None where that failed."""
    draws_from: str | None = None
    """Of where the global random generators stand when it is scored, of a task whose code draws from them."""


class Requests(Mapping[bytes, int]):
    """Tokens of each request by its address, as the file has them: looked up only where two files differ.

    A plan compares some hundred thousand requests for each class of sheets, most of which are equal.
    """

    def __init__(self, entries: bytes) -> None:
        self._entries = entries

    @cached_property
    def _tokens(self) -> dict[bytes, int]:
        return dict(ENTRY.iter_unpack(self._entries))

    def __getitem__(self, address: bytes) -> int:
        return self._tokens[address]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Requests):
            return self._entries == other._entries or self._tokens == other._tokens
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as for every mapping

    def keys(self) -> KeysView[bytes]:
        return self._tokens.keys()

    def items(self) -> ItemsView[bytes, int]:
        return self._tokens.items()

    def values(self) -> ValuesView[int]:
        return self._tokens.values()


@dataclass(frozen=True)
class TaskFacts:
    """One lm-eval task of a sheet."""

    version: str
    documents: int
    content: str
    """Digest of the documents in order."""
    targets: str
    """Digest of the right answers, and of the choices where there are any."""
    instances: str
    """Digest of which requests answer which document, and of the text that lm-eval has of them."""
    dataset: str
    """Path, configuration and revision, for people."""
    scoring: Scoring
    requests: Mapping[bytes, int]
    """Tokens of each request, what it may generate included, by its address."""


@dataclass(frozen=True)
class SheetFacts:
    """Everything of a sheet that decides whether scores, or responses, of another one still hold."""

    benchmark: str
    harness: str
    """Code and version that made it, e.g. `lm_eval 0.4.13`."""
    sheet_class: str
    """`wire.PrepareDone.sheet_class`."""
    identity: Mapping[str, Any]
    """The model's part of the identity, by which responses are addressed beside the request."""
    groups: str
    """Digest of how the tasks' numbers become those of groups."""
    tasks: Mapping[str, TaskFacts]
    judged_by: str = ""
    """Digest of all code and packages that judge its answers, which is then part of the class, too: what is true of one
    sheet of the class is true of all. Empty where the worker did not say."""


def read_facts(packed: bytes) -> SheetFacts:
    """The facts that a file's bytes hold.

    Raises:
        DamagedFacts: they are cut off or changed, or of a later format.
    """
    try:
        # The one-shot call refuses a frame that does not end.
        unpacked = zstandard.ZstdDecompressor().decompress(packed, max_output_size=MOST_BYTES)
        line, _, entries = unpacked.partition(b"\n")
        header = json.loads(line)
        if header["format"] != FORMAT:
            raise DamagedFacts(f"{FACTS_FILE} has format {header['format']}, this version reads {FORMAT}.")
        tasks: dict[str, TaskFacts] = {}
        start = 0
        for name, facts in header["tasks"].items():
            end = start + facts.pop("requests") * ENTRY_BYTES
            scoring = Scoring(**facts.pop("scoring"))
            tasks[name] = TaskFacts(**facts, scoring=scoring, requests=Requests(entries[start:end]))
            start = end
        if start != len(entries):
            raise DamagedFacts(f"{FACTS_FILE} is cut off. Prepare the benchmark again.")
        return SheetFacts(
            benchmark=header["benchmark"],
            harness=header["harness"],
            sheet_class=header["sheet_class"],
            identity=header["identity"],
            groups=header["groups"],
            tasks=tasks,
            judged_by=str(header.get("judged_by", "")),
        )
    except (zstandard.ZstdError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFacts(f"{FACTS_FILE} is damaged: {error}. Prepare the benchmark again.") from error
