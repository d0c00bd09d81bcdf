"""Reads results files of lm-eval, and those of the Open LLM Leaderboard's first version: a file or more for each model.

The suite adds the numbers up, by the same formulas as for what is evaluated here. Of several files of one model, commit
and precision the newest wins for each metric. A request file beside them says what the results do not.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.errors import NotFound, Refused
from orchestrator.exchange.leaderboard import BROKEN, NEVER_ZERO
from orchestrator.exchange.leaderboard_words import WEIGHTS, precision_of, type_of
from orchestrator.exchange.places import MANIFEST
from orchestrator.exchange.row import Row, check_against
from orchestrator.exchange.sources import MOST_ROWS, Found, files_below, parse_row, read_json
from orchestrator.results.values import MissingScore, average, evaluate_benchmark
from orchestrator.rows import Progress
from orchestrator.suites import Suite
from orchestrator.wire import EngineFamily, FailureKind, ScoreValue

FIRST_VERSION = {
    "arc:challenge": ("arc_challenge", {}),
    "hellaswag": ("hellaswag", {}),
    "truthfulqa:mc": ("truthfulqa_mc2", {"mc2": ("acc", "none")}),
    "winogrande": ("winogrande", {}),
    "gsm8k": ("gsm8k", {"acc": ("exact_match", "strict-match")}),
}
"""Tasks of the leaderboard's first version, as lm-eval calls them today; `hendrycksTest-X` is `mmlu_X`."""
FILE_TIME = re.compile(r"results_(\d{4}-\d\d-\d\d)T(\d\d)[-:](\d\d)[-:](\d\d)(?:\.(\d{1,6}))?")
ENGINES = {"hf": EngineFamily.TRANSFORMERS, "vllm": EngineFamily.VLLM}


@dataclass
class _Model:
    """What the files of one model, commit and precision say."""

    name: str
    revision: str
    precision: str
    engine: EngineFamily = EngineFamily.TRANSFORMERS
    parameters: int | None = None
    limit: Any = None
    chat_template: bool = False
    at: datetime | None = None
    numbers: dict[tuple[str, str, str], ScoreValue] = field(default_factory=dict)
    digest: str = ""


def are_results(folder: Path) -> bool:
    """Whether a folder has such files."""
    return bool(_files(folder))


def read_results(folder: Path, suites: Mapping[str, Suite], *, only: str | None, progress: Progress) -> Found:
    """The rows of every model that the files name.

    Raises:
        Refused, NotFound: it cannot be told which suite they are of.
    """
    told = f"results files of lm-eval, as no {MANIFEST} lies there: the suite adds their numbers up anew"
    found = Found("open-llm-leaderboard", told)
    models: dict[tuple[str, str, str], _Model] = {}
    files = sorted(_files(folder), key=lambda path: (_file_time(path) or datetime.min.replace(tzinfo=UTC), path))
    digest = hashlib.sha256()
    for number, path in enumerate(files, start=1):
        try:
            record = read_json(path)
            _take(record, path, models)
            digest.update(path.read_bytes())
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
            found.refuse(path.relative_to(folder).as_posix(), f"{error}" or type(error).__name__)
            found.is_whole = False
        if len(models) > MOST_ROWS:
            raise Refused(f"This source has more than {MOST_ROWS:,} models.")
        progress("files", number, len(files))
    found.digest = digest.hexdigest()
    if not models:
        return found
    suite = _suite_of(list(models.values()), suites, only=only)
    requests = _requests(folder)
    for number, model in enumerate(models.values(), start=1):
        try:
            row = _as_row(suite, model, requests.get((model.name, model.precision), {}), number=number)
            if reason := check_against(suite, row, tolerance=1e-6):
                raise ValueError(reason)
        except (ValueError, OverflowError) as error:
            found.refuse(f"{model.name} {model.precision}", str(error))
        else:
            found.rows.append((suite, row))
    return found


def _files(folder: Path) -> list[Path]:
    return files_below(folder, "results_*.json") if folder.is_dir() else []


def _take(record: Any, path: Path, models: dict[tuple[str, str, str], _Model]) -> None:
    """Add a file's numbers to its model's.

    Raises:
        ValueError: it is no results file.
    """
    if not isinstance(record, dict) or not isinstance(record.get("results"), dict):
        raise ValueError("it is no results file of lm-eval")
    first = record.get("config_general")
    config = record.get("config") if isinstance(record.get("config"), dict) else {}
    assert isinstance(config, dict)
    if isinstance(first, dict):
        name, sha, dtype = first.get("model_name"), first.get("model_sha"), first.get("model_dtype")
        limit = first.get("max_samples")
    else:
        name = record.get("model_name") or _argument(config.get("model_args"), "pretrained")
        sha = config.get("model_sha") or config.get("model_revision")
        dtype, limit = config.get("model_dtype") or _argument(config.get("model_args"), "dtype"), config.get("limit")
    if not isinstance(name, str) or not isinstance(dtype, str):
        raise ValueError("it does not say which model or precision it is of")
    precision = precision_of(dtype).value
    key = (name, str(sha or "unknown"), precision)
    model = models.setdefault(key, _Model(*key))
    count = config.get("model_num_parameters")
    model.parameters = count if isinstance(count, int) and count > 0 else model.parameters
    model.engine = ENGINES.get(str(config.get("model")), model.engine)
    model.limit = limit if limit not in (None, 0) else model.limit
    model.chat_template = bool(record.get("chat_template")) or model.chat_template
    model.at = _file_time(path) or model.at
    for score in _scores(record):
        model.numbers[score.task, score.metric, score.filter] = score


def _scores(record: Mapping[str, Any]) -> Iterator[ScoreValue]:
    tables = {**record["results"], **(record.get("groups") or {})}
    counts = record.get("n-samples") if isinstance(record.get("n-samples"), dict) else {}
    assert isinstance(counts, dict)
    for told, table in tables.items():
        if not isinstance(table, dict):
            continue
        task, renamed = _task(str(told))
        for key, value in table.items():
            metric, _, filter = str(key).partition(",")
            if metric.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not math.isfinite(value):
                continue
            stderr = table.get(f"{metric}_stderr,{filter}" if filter else f"{metric}_stderr")
            count = counts.get(told)
            samples = count.get("effective") if isinstance(count, dict) else None
            metric, filter = renamed.get(metric, (metric, filter or "none"))
            yield ScoreValue(
                task=task[:200],
                metric=metric[:100],
                filter=filter[:100],
                value=float(value),
                stderr=float(stderr)
                if isinstance(stderr, int | float) and not isinstance(stderr, bool) and math.isfinite(stderr)
                else None,
                samples=samples if isinstance(samples, int) and samples >= 0 else 0,
            )


def _task(told: str) -> tuple[str, Mapping[str, tuple[str, str]]]:
    """lm-eval's name of a task, and of those metrics that are called otherwise; `harness|arc:challenge|25` is v1's."""
    parts = told.split("|")
    if len(parts) < 3:
        return told, {}
    name = parts[1]
    if name.startswith("hendrycksTest-"):
        return f"mmlu_{name.removeprefix('hendrycksTest-')}", {}
    return FIRST_VERSION.get(name, (name, {}))


def _as_row(suite: Suite, model: _Model, request: Mapping[str, Any], *, number: int) -> Row:
    """Raises ValueError for what is wrong with it."""
    scores: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    values = {}
    numbers = list(model.numbers.values())
    for benchmark in suite.benchmarks:
        counted = {
            (score.task, score.metric, score.filter) for part in benchmark.parts for score in part.select(numbers)
        }
        if any(model.numbers[key].value == 0.0 and key[0] in NEVER_ZERO for key in counted):
            lacks = {"benchmark": benchmark.name, "kind": FailureKind.INVALID_OUTPUT, "sentence": BROKEN}
            missing.append(lacks)
            continue
        try:
            value = evaluate_benchmark(benchmark, numbers)
        except MissingScore:
            missing.append({"benchmark": benchmark.name, "kind": FailureKind.INVALID_OUTPUT})
            continue
        values[benchmark.name] = value
        own = {"benchmark": benchmark.name, "metric": "value", "value": value.value, "stderr": value.stderr}
        own["samples"] = sum({key[0]: model.numbers[key].samples for key in counted}.values())
        scores += [own, {"benchmark": benchmark.name, "metric": "raw", "value": value.raw}]
        for key in sorted(counted | _group(benchmark.raw_task, model)):
            one = model.numbers[key]
            scores.append({"benchmark": benchmark.name, **one.model_dump(exclude={"higher_is_better"})})
    if not values:
        raise ValueError(f"it has no benchmark of {suite.name} whole")
    weights = {text: name for name, text in WEIGHTS.items()}
    params = request.get("params")
    return parse_row(
        {
            "evaluation": number,
            "model": model.name,
            "revision": model.revision,
            "precision": model.precision,
            "weight_type": weights.get(str(request.get("weight_type")), "original"),
            "base_model": request.get("base_model") or None,
            "model_type": type_of(str(request.get("model_type") or "")),
            "chat_template": request.get("use_chat_template") is True or model.chat_template,
            "architecture": request.get("architectures") or None,
            "parameters": model.parameters
            or (round(params * 1e9) if isinstance(params, int | float) and 0 < params < 1e6 else None),
            "engine": model.engine,
            "document_limit": model.limit,
            "average": average(suite, values),
            "submitted_at": request.get("submitted_time") or model.at,
            "ended_at": model.at,
            "scores": scores,
            "missing": missing,
        }
    )


def _group(raw_task: str | None, model: _Model) -> set[tuple[str, str, str]]:
    return {key for key in model.numbers if raw_task is not None and key[0] == raw_task}


def _requests(folder: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Finished requests beside the results, by model and precision."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for path in files_below(folder, "*_eval_request_*.json"):
        try:
            record = read_json(path)
            if isinstance(record, dict) and record.get("status") == "FINISHED":
                found[str(record["model"]), precision_of(str(record["precision"])).value] = record
        except (ValueError, KeyError, OSError):
            continue  # the results stand without it
    return found


def _suite_of(models: list[_Model], suites: Mapping[str, Suite], *, only: str | None) -> Suite:
    """The suite of which the first models have most benchmarks.

    Raises:
        Refused, NotFound: there is none, or several, or none of the given name.
    """
    if only is not None:
        if only not in suites:
            raise NotFound(f"There is no suite {only[:60]!r} here.")
        return suites[only]
    fits: dict[str, int] = {}
    for suite in suites.values():
        for model in models[:20]:
            numbers = list(model.numbers.values())
            for benchmark in suite.benchmarks:
                whole = all(len(part.select(numbers)) == part.count for part in benchmark.parts)
                fits[suite.name] = fits.get(suite.name, 0) + whole
    best = [name for name, many in fits.items() if many and many == max(fits.values())]
    if len(best) != 1:
        raise Refused(
            f"The results do not say which suite they are of. Name one with --suite: {', '.join(best or suites)}."
        )
    return suites[best[0]]


def _argument(arguments: Any, name: str) -> Any:
    """One of lm-eval's model arguments, a record or `name=value,…`."""
    if isinstance(arguments, dict):
        return arguments.get(name)
    if isinstance(arguments, str):
        pairs = (part.split("=", 1) for part in arguments.split(",") if "=" in part)
        return next((value for key, value in pairs if key == name), None)
    return None


def _file_time(path: Path) -> datetime | None:
    found = FILE_TIME.match(path.name)
    if not found:
        return None
    day, hour, minute, second, part = found.groups()
    try:
        return datetime.fromisoformat(f"{day}T{hour}:{minute}:{second}.{(part or '0').ljust(6, '0')}+00:00")
    except ValueError:
        return None
