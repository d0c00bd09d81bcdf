"""Per-sample records of an evaluation: found through its score job, read page by page from the artifact store.

A task's name from a URL only ever selects among the files that exist; it is never made into a path.
"""

import io
import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from sqlmodel import Session, select

from orchestrator.artifacts import ArtifactStore
from orchestrator.errors import NotFound, Refused
from orchestrator.tables import Job
from orchestrator.wire import Stage

PREFIX, SUFFIX = "samples_", ".jsonl.zst"
LINE_BYTES = 32 << 20
"""A record larger than this is not shown."""
PAGE_BYTES = 4 << 20
"""A page ends early, after one record at least, when its records are larger: prompts can be long."""


class Page(NamedTuple):
    tasks: list[str]
    task: str
    records: list[dict[str, Any]]
    next_offset: int | None


@dataclass(frozen=True)
class Choice:
    """One continuation that a model was asked to judge."""

    text: str
    loglikelihood: float | None
    is_chosen: bool


@dataclass(frozen=True)
class Sample:
    """One document as people read it: what was sent, what came back, how it was judged."""

    document: str
    prompt: str
    choices: tuple[Choice, ...]
    responses: tuple[str, ...]
    target: str
    filtered: str
    filter: str
    metrics: tuple[tuple[str, str], ...]
    is_right: bool | None
    """None where the metric is not a plain right or wrong."""


def results_key(session: Session, evaluation_id: int, benchmark: str) -> str:
    """Where the results of a scored benchmark are kept.

    Raises:
        NotFound: the benchmark has not been scored.
    """
    job = session.exec(
        select(Job).where(Job.evaluation_id == evaluation_id, Job.benchmark == benchmark, Job.stage == Stage.SCORE)
    ).first()
    key = job.result.get("results") if job else None
    if not isinstance(key, str):
        raise NotFound(f"Evaluation {evaluation_id} has no samples of a benchmark '{benchmark}', or not yet.")
    return key


def read_page(
    store: ArtifactStore, key: str, *, scratch: Path, task: str | None = None, offset: int = 0, limit: int = 20
) -> Page:
    """Some records of one task's samples file; the first task's when none is named.

    Raises:
        NotFound: there is no such task among the results, or no samples at all.
    """
    files = {
        name.removeprefix(PREFIX).removesuffix(SUFFIX): found
        for found in store.list(key)
        if (name := found.rsplit("/", 1)[-1]).startswith(PREFIX) and name.endswith(SUFFIX)
    }
    if not files:
        raise NotFound("No samples were kept with these results.")
    chosen = task or next(iter(files))
    if chosen not in files:
        raise NotFound(f"There are no samples of a task of that name. There are: {', '.join(list(files)[:20])}.")
    lines = _lines(store.fetch_file(files[chosen], scratch))
    records: list[dict[str, Any]] = []
    size = 0
    for line in itertools.islice(lines, offset, None):
        size += len(line)
        if len(records) == limit or (records and size > PAGE_BYTES):
            return Page(list(files), chosen, records, offset + len(records))
        records.append(json.loads(line))
    return Page(list(files), chosen, records, None)


def present(record: Mapping[str, Any]) -> Sample:
    """A record of lm-eval as people read it; whatever is missing is left empty."""
    arguments = _arguments(record.get("arguments"))
    responses = [_unwrap(found) for found in _as_list(record.get("resps"))]
    is_choice = bool(responses) and all(_loglikelihood(found) is not None for found in responses)
    prompt = str(arguments[0][0]) if arguments and arguments[0] else ""
    choices: tuple[Choice, ...] = ()
    if is_choice and len(arguments) == len(responses):
        likelihoods = [_loglikelihood(found) for found in responses]
        best = max(likelihoods, key=lambda found: float("-inf") if found is None else found)
        choices = tuple(
            Choice(_continuation(prompt, argument), likelihood, likelihood == best)
            for argument, likelihood in zip(arguments, likelihoods, strict=True)
        )
    names = [str(name) for name in _as_list(record.get("metrics"))]
    metrics = tuple((name, _shown(record.get(name))) for name in names)
    return Sample(
        document=str(record.get("doc_id", "")),
        prompt=prompt,
        choices=choices,
        responses=() if is_choice else tuple(_shown(found) for found in responses),
        target=_shown(record.get("target", "")),
        filtered="" if is_choice else ", ".join(_shown(found) for found in _as_list(record.get("filtered_resps"))),
        filter=str(record.get("filter", "")),
        metrics=metrics,
        is_right=_is_right([record.get(name) for name in names]),
    )


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        reader = io.BufferedReader(stream, buffer_size=1 << 20)
        while line := reader.readline(LINE_BYTES):
            if len(line) == LINE_BYTES:
                raise Refused(
                    f"A record is larger than {LINE_BYTES >> 20} MiB. Read {path.name} from the artifact store."
                )
            yield line


def _arguments(value: Any) -> list[list[Any]]:
    """lm-eval writes them as lists, or as `{"gen_args_0": {"arg_0": …}}`."""
    outer = list(value.values()) if isinstance(value, dict) else _as_list(value)
    return [list(inner.values()) if isinstance(inner, dict) else _as_list(inner) for inner in outer]


def _continuation(prompt: str, argument: list[Any]) -> str:
    """What tells this choice from the others: mostly the continuation, sometimes the context."""
    context, continuation = str(argument[0]), str(argument[1]) if len(argument) > 1 else ""
    if context == prompt or not prompt:
        return continuation
    return f"…{context[-120:]} ▸ {continuation}"


def _unwrap(value: Any) -> Any:
    """The answer of the first repeat: lm-eval keeps a list of repeats for each request."""
    if isinstance(value, list) and len(value) == 1:
        return value[0]
    return value


def _loglikelihood(value: Any) -> float | None:
    if isinstance(value, list) and len(value) == 2 and str(value[1]) in ("True", "False"):
        with suppress(TypeError, ValueError):
            return float(value[0])
    return None


def _is_right(values: list[Any]) -> bool | None:
    plain = [value for value in values if isinstance(value, bool | int | float)]
    if not plain or any(value not in (0, 1) for value in plain):
        return None
    return all(value == 1 for value in plain)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
