"""Takes the fixed sample of an evaluation's requests that a canary asks, with the stored answers to them.

The sample is of whole documents, so that choices can be compared: from each benchmark in turn, those whose names'
hashes are smallest, which is at random and always the same. What is drawn by chance, or has no stored answer, is left
out. It is kept under a prefix of its own:

    canaries/<canary>/<token>/scored/{sheet.json,requests.jsonl.zst}
    canaries/<canary>/<token>/generated/{sheet.json,requests.jsonl.zst}
    canaries/<canary>/<token>/reference.json
"""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from orchestrator.artifacts import ArtifactStore
from orchestrator.canaries import sealed
from orchestrator.canaries.drift import GENERATED, SCORED, Answer, Question
from orchestrator.errors import EvalyardError

REFERENCE = "reference.json"
FORMAT = 1
SPARE = 2
"""Times as many documents are looked at as would do: some may have no answer."""
LEAST = 20
"""Requests below which a sample tells nothing."""


class NoSample(EvalyardError):
    """The evaluation has too few requests with stored answers."""


@dataclass(frozen=True)
class Sample:
    prefix: str
    sheets: dict[str, str]
    """Kind of requests to the artifact key of their sheet."""
    requests: int
    longest: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class Reference:
    questions: tuple[Question, ...]
    answers: dict[str, Answer]


def take_sample(
    store: ArtifactStore, canary: int, *, sheets: Mapping[str, str], identity: Mapping[str, Any], asked: int
) -> Sample:
    """Write a sample of about so many requests, out of these sheets by benchmark, and return where it is.

    Raises:
        NoSample, DamagedArtifact, ArtifactError: with a sentence.
    """
    each = SPARE * -(-asked // len(sheets)) + LEAST
    candidates = {name: _first_documents(store, sheet, each) for name, sheet in sheets.items()}
    wanted = {one for found in candidates.values() for question in found for one in _ids(question)}
    found = {
        request.id: (request, line)
        for sheet in sheets.values()
        for request, line in sealed.read_requests(store, sheet, wanted)
    }
    kinds = {one: request.kind for one, (request, _) in found.items()}
    usable = {one for one, (request, _) in found.items() if not request.is_sampled and request.kind in sealed.KINDS}
    answers, engines = sealed.read_answers(store, identity, usable)
    questions = _choose(
        [
            [
                question._replace(kind=sealed.KINDS[kinds[_ids(question)[0]]])
                for question in these
                if _is_whole(question, answers, kinds)
            ]
            for these in candidates.values()
        ],
        asked,
    )
    kept = {one: None for question in questions for one in _ids(question)}
    if len(kept) < LEAST:
        raise NoSample(
            f"Only {len(kept)} requests of it have stored answers that can be compared, and a canary needs {LEAST}. "
            "Take an evaluation with more documents."
        )
    prefix = f"canaries/{canary}/{secrets.token_hex(8)}"
    info = json.loads(store.read_bytes(f"{next(iter(sheets.values()))}/sheet.json"))
    written: dict[str, str] = {}
    for kind in (SCORED, GENERATED):
        chosen = [found[one] for one in kept if sealed.KINDS[found[one][0].kind] == kind]
        if chosen:
            written[kind] = f"{prefix}/{kind}"
            _write_sheet(store, written[kind], [line for _, line in chosen], [one for one, _ in chosen], info=info)
    reference = {
        "format": FORMAT,
        "questions": [question._asdict() for question in questions],
        "answers": {one: answers[one]._asdict() for one in kept},
        "engines": engines,
    }
    store.put_bytes(f"{prefix}/{REFERENCE}", json.dumps(reference, allow_nan=False).encode())
    texts = sum(question.kind == GENERATED for question in questions)
    return Sample(
        prefix=prefix,
        sheets=written,
        requests=len(kept),
        longest=max(found[one][0].length for one in kept),
        facts={"engines": engines, "documents": len(questions), "texts": texts},
    )


def read_reference(store: ArtifactStore, prefix: str) -> Reference:
    """The stored answers of a sample, and which documents they are of.

    Raises:
        DamagedArtifact, ArtifactError
    """
    try:
        record = json.loads(store.read_bytes(f"{prefix}/{REFERENCE}"))
        return Reference(
            questions=tuple(
                Question(one["task"], one["document"], tuple(map(tuple, one["choices"])), one["kind"])
                for one in record["questions"]
            ),
            answers={request: Answer(**answer) for request, answer in record["answers"].items()},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise sealed.DamagedArtifact(f"The canary's reference in {prefix} is damaged. Set the canary anew.") from error


def _is_whole(question: Question, answers: Mapping[str, Answer], kinds: Mapping[str, str]) -> bool:
    """Whether every request of a document has a stored answer, all of one kind."""
    requests = _ids(question)
    return all(one in answers for one in requests) and len({kinds[one] for one in requests}) == 1


def _first_documents(store: ArtifactStore, sheet: str, most: int) -> list[Question]:
    """The documents of a sheet with the smallest hashes, in that order."""
    kept: dict[tuple[bytes, str, int], dict[int, tuple[str, ...]]] = {}
    last: tuple[bytes, str, int] | None = None
    for instance in sealed.read_instances(store, sheet):
        key = (_rank(instance.task, instance.document), instance.task, instance.document)
        if key not in kept:
            if len(kept) >= most:
                last = last or max(kept)
                if key > last:
                    continue
                del kept[last]
                last = None
            kept[key] = {}
            last = None
        kept[key][instance.index] = tuple(chain.from_iterable(instance.requests))
    return [
        Question(task, document, tuple(choices for _, choices in sorted(kept[rank, task, document].items())))
        for rank, task, document in sorted(kept)
    ]


def _rank(task: str, document: int) -> bytes:
    return hashlib.sha256(f"{task}\0{document}".encode()).digest()


def _choose(by_benchmark: Sequence[Sequence[Question]], asked: int) -> list[Question]:
    """Documents of each benchmark in turn, until they have so many requests."""
    chosen: list[Question] = []
    requests: set[str] = set()
    for question in chain.from_iterable(zip_longest(*by_benchmark)):
        if len(requests) >= asked:
            break
        if question is not None:
            chosen.append(question)
            requests.update(_ids(question))
    return chosen


def _ids(question: Question) -> list[str]:
    return [one for choice in question.choices for one in choice]


def _write_sheet(
    store: ArtifactStore, key: str, lines: list[bytes], requests: list[sealed.Request], *, info: Mapping[str, Any]
) -> None:
    kind = key.rpartition("/")[2]
    store.put_bytes(f"{key}/requests.jsonl.zst", sealed.pack_lines(lines))
    told = {
        **info,
        "benchmark": f"canary, {kind}",
        "requests": len(lines),
        "instances": 0,
        "documents": 0,
        "truncated": 0,
        "longest": max(one.length for one in requests),
        "plan": {},
        "provenance": {},
        "generations": len(lines) if kind == GENERATED else 0,
    }
    store.put_bytes(f"{key}/sheet.json", json.dumps(told, allow_nan=False).encode())
