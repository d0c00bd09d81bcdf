"""The files of a published suite: requests, results and contents of the Open LLM Leaderboard, with Evalyard's record.

    SUITE/suite.json                    the suite in this version, and its digest
    SUITE/requests/ORG/NAME_eval_request_False_PRECISION_WEIGHTS.json
    SUITE/results/ORG/NAME/results_TIME.json        lm-eval's form; under `evalyard` everything that the row hangs on
    SUITE/contents/contents.jsonl, contents.parquet

Equal rows give equal bytes, so that what has not changed is not written again.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from orchestrator.artifacts import slug
from orchestrator.board.standings import Standing
from orchestrator.exchange import paths
from orchestrator.exchange.leaderboard_words import WEIGHTS, precision_text, type_text
from orchestrator.exchange.reading import Request
from orchestrator.exchange.row import Row
from orchestrator.suite_versions import score_digest
from orchestrator.suites import Suite
from orchestrator.wire import EngineFamily

FORMAT = 1


class File(NamedTuple):
    """A file to be published: its path, and what makes its bytes when it is its turn."""

    path: str
    make: Callable[[], bytes | None]
    """None for one that is not to be published after all."""


def suite_record(suite: Suite) -> dict[str, Any]:
    """What an importer compares with the suite that it has."""
    return {
        "format": FORMAT,
        "name": suite.name,
        "version": suite.version,
        "digest": score_digest(suite),
        "suite": suite.model_dump(mode="json"),
    }


def request_paths(suite: Suite, requests: Iterable[Request]) -> dict[int, str]:
    """The path of each request, by evaluation.

    The leaderboard's name says model, precision and weights alone. Of several such requests the latest has that name,
    as it would there; the others have a digest more, since nothing that was asked for is overwritten here.
    """
    found: dict[int, str] = {}
    taken: set[str] = set()
    for one in sorted(requests, key=lambda one: (one.submitted_at, one.evaluation), reverse=True):
        path = paths.request_file(suite.name, one.model, one.precision, one.weight_type)
        if path.casefold() in taken:
            also = hashlib.sha256(one.row_id.encode()).hexdigest()[:12]
            path = paths.request_file(suite.name, one.model, one.precision, one.weight_type, also=also)
            if path.casefold() in taken:  # a trial that was asked for again
                path = path.removesuffix(".json") + f"_{one.evaluation}.json"
        taken.add(path.casefold())
        found[one.evaluation] = path
    return found


def request_bytes(request: Request) -> bytes:
    """One request, field by field as the leaderboard has it; who sent it is not told."""
    return as_json(
        {
            "model": request.model,
            "base_model": request.base_model,
            "revision": request.revision,
            "precision": precision_text(request.precision),
            "params": round(request.parameters / 1e9, 3) if request.parameters is not None else None,
            "architectures": request.architecture,
            "weight_type": WEIGHTS.get(request.weight_type, "Original"),
            "status": request.status,
            "submitted_time": _second(request.submitted_at),
            "model_type": type_text(request.model_type),
            "job_id": -1,
            "job_start_time": _second(request.started_at) if request.started_at else None,
            "use_chat_template": request.chat_template,
            "sender": None,
        }
    )


def results_paths(suite: Suite, standings: Sequence[Standing]) -> dict[int, tuple[str, datetime]]:
    """Path and time of each row's results, by evaluation: two of one model never share a file."""
    found: dict[int, tuple[str, datetime]] = {}
    taken: set[str] = set()
    for row in sorted(standings, key=lambda row: row.evaluation):
        assert row.ended_at is not None
        at = row.ended_at
        while (path := paths.results_file(suite.name, row.model, at)).casefold() in taken:
            at += timedelta(microseconds=1)
        taken.add(path.casefold())
        found[row.evaluation] = path, at
    return found


def results_bytes(suite: Suite, row: Row) -> bytes:
    """One row's results as lm-eval writes them, and the whole row beside."""
    results: dict[str, dict[str, Any]] = {}
    samples: dict[str, dict[str, int]] = {}
    for score in row.scores:
        if not score.task:
            continue
        table = results.setdefault(score.task, {"alias": score.task})
        table.setdefault(f"{score.metric},{score.filter}", score.value)
        table.setdefault(f"{score.metric}_stderr,{score.filter}", "N/A" if score.stderr is None else score.stderr)
        samples.setdefault(score.task, {"original": score.samples, "effective": score.samples})
    said = [record.get("score", {}) for record in row.provenance.values()]
    shots = {task: benchmark.num_fewshot for benchmark in suite.benchmarks for task in benchmark.tasks}
    return as_json(
        {
            "results": results,
            "versions": _merged(said, "versions"),
            "n-shot": {task: number for task, number in shots.items() if number is not None},
            "n-samples": samples,
            "task_hashes": _merged(said, "task_hashes"),
            "config": {
                "model": "hf" if row.engine is EngineFamily.TRANSFORMERS else row.engine.value,
                "model_args": f"pretrained={row.model},revision={row.revision},dtype={row.precision.value}",
                "model_num_parameters": row.parameters,
                "model_dtype": row.precision.value,
                "model_revision": row.revision,
                "model_sha": row.revision,
                "limit": row.document_limit,
            },
            "date": row.ended_at.timestamp() if row.ended_at else None,
            "lm_eval_version": suite.harness.removeprefix("lm_eval "),
            "model_source": "hf" if row.engine is EngineFamily.TRANSFORMERS else row.engine.value,
            "model_name": row.model,
            "model_name_sanitized": row.model.replace("/", "__"),
            "evalyard": {
                "format": FORMAT,
                "suite": suite.name,
                "suite_version": suite.version,
                "row": row.model_dump(mode="json"),
            },
        }
    )


def contents_path(suite: Suite, kind: str) -> str:
    return f"{slug(suite.name)}/contents/contents.{kind}"


def as_json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _merged(records: Iterable[Any], key: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records:
        part = record.get(key) if isinstance(record, dict) else None
        found |= part if isinstance(part, dict) else {}
    return found


def _second(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
