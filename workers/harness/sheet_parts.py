"""Writes a sheet's instances and documents, as lm-eval's task objects have them, and takes their digests on the way.

The requests are written while they are asked (`recorder`). Computes no token and judges nothing.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator.wire import FailureKind
from workers.harness import freeze
from workers.harness.sheet_facts import Digest
from workers.sheets import Document, Instance, write_lines
from workers.stage import StageFailure

if TYPE_CHECKING:
    from workers.harness.recorder import RecordingLM


@dataclass(frozen=True)
class TaskDigests:
    """What tells one task of a sheet from the same task of another."""

    prompts: str
    targets: str
    """Of the right answers alone."""
    answers: str
    """Of the right answers and of the choices where there are any."""
    instances: str
    content: str
    documents: int


@dataclass(frozen=True)
class Parts:
    instances: int
    documents: int
    tasks: dict[str, TaskDigests]


def write_parts(out: Path, tasks: Mapping[str, Any], lm: "RecordingLM") -> Parts:
    """Write instances.jsonl.zst and documents.jsonl.zst into `out`.

    Raises:
        StageFailure: TASK_REFUSED for a document that cannot be kept.
    """
    encoder = msgspec.json.Encoder()
    instance_digests = {name: Digest() for name in tasks}
    content_digests = {name: Digest() for name in tasks}
    documents = {name: _documents(task) for name, task in tasks.items()}

    def instances() -> Iterator[Instance]:
        for name, task in tasks.items():
            for instance in task.instances:
                record = Instance(
                    task=name,
                    document=instance.doc_id,
                    index=instance.idx,
                    request_type=instance.request_type,
                    arguments=[_frozen(name, argument) for argument in instance.args],
                    requests=lm.answers[id(instance)],
                )
                instance_digests[name].add(encoder.encode(record))
                yield record

    def contents() -> Iterator[Document]:
        for name, found in documents.items():
            for number, content in found.items():
                record = Document(name, number, _frozen(name, content))
                content_digests[name].add(encoder.encode(record))
                yield record

    instance_count = write_lines(out / "instances.jsonl.zst", instances())
    document_count = write_lines(out / "documents.jsonl.zst", contents())
    digests = {
        name: TaskDigests(
            prompts=_prompts(task),
            targets=_targets(task, documents[name]),
            answers=_answers(task, documents[name]),
            instances=str(instance_digests[name]),
            content=str(content_digests[name]),
            documents=len(documents[name]),
        )
        for name, task in tasks.items()
    }
    return Parts(instance_count, document_count, digests)


def requests_of(tasks: Mapping[str, Any], lm: "RecordingLM", lengths: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Tokens of each task's requests, by their hashes."""
    return {
        name: {
            identifier: lengths[identifier]
            for instance in task.instances
            for repeat in lm.answers[id(instance)]
            for identifier in repeat
        }
        for name, task in tasks.items()
    }


def _documents(task: Any) -> dict[int, Any]:
    """The documents as the requests were built from them; reading the dataset again might shuffle them anew."""
    found: dict[int, Any] = {}
    for instance in task.instances:
        found.setdefault(instance.doc_id, instance.doc)
    return found


def _prompts(task: Any) -> str:
    digest = hashlib.sha256()
    for instance in task.instances:
        for argument in instance.args:
            digest.update(repr(argument).encode() + b"\0")
    return digest.hexdigest()


def _targets(task: Any, documents: Mapping[int, Any]) -> str:
    digest = hashlib.sha256()
    for content in documents.values():
        digest.update(str(task.doc_to_target(content)).encode() + b"\0")
    return digest.hexdigest()


def _answers(task: Any, documents: Mapping[int, Any]) -> str:
    has_choices = getattr(task.config, "doc_to_choice", None) is not None
    digest = Digest()
    for content in documents.values():
        choices = task.doc_to_choice(content) if has_choices else None
        digest.add(repr((task.doc_to_target(content), choices)).encode())
    return str(digest)


def _frozen(task: str, value: Any) -> Any:
    try:
        return freeze.freeze(value)
    except freeze.NotFreezable as error:
        raise StageFailure(
            FailureKind.TASK_REFUSED, f"Task {task} cannot be kept in a sheet: {error} Leave it out."
        ) from error
