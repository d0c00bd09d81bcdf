"""lm-eval's results as scores for the hub and as files in lm-eval's own layout.

results.json                 the record that lm-eval writes as results_<time>.json, key by key
samples_<task>.jsonl.zst     a line a document, as lm-eval's samples_<task>_<time>.jsonl
segments.json                the segments that were read, with their digests
"""

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard
from lm_eval.utils import handle_non_serializable, hash_string, sanitize_list

from orchestrator.wire import ScoreValue
from workers.harness import code_eval
from workers.harness.outcomes import is_number


def scores(results: dict[str, Any]) -> Iterator[ScoreValue]:
    """Every metric of every task and group, with its standard error where lm-eval gives one."""
    tables = results["results"] | results.get("groups", {})
    for task, table in tables.items():
        better = results.get("higher_is_better", {}).get(task, {})
        for key, value in table.items():
            metric, comma, filter_name = key.partition(",")
            if not comma or metric.endswith("_stderr") or isinstance(value, str) or not is_number(value):
                continue
            stderr = table.get(f"{metric}_stderr,{filter_name}")
            yield ScoreValue(
                task=task,
                metric=metric,
                filter=filter_name,
                value=float(value),
                stderr=float(stderr) if is_number(stderr) and math.isfinite(stderr) else None,
                samples=_samples(results, task, table),
                higher_is_better=better.get(metric),
            )


def write_results(path: Path, results: dict[str, Any]) -> None:
    text = json.dumps(results, indent=2, default=handle_non_serializable, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")


def task_hashes(samples: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """As lm-eval's EvaluationTracker computes them."""
    return {
        task: hash_string("".join(line["doc_hash"] + line["prompt_hash"] + line["target_hash"] for line in lines))
        for task, lines in samples.items()
    }


def write_samples(path: Path, lines: list[dict[str, Any]]) -> None:
    """One task's samples with the changes that lm-eval makes before it writes them."""
    with path.open("wb") as raw, zstandard.ZstdCompressor(level=6).stream_writer(raw, closefd=False) as out:
        for line in lines:
            sample = copy.copy(line)
            sample["arguments"] = {
                f"gen_args_{number}": {f"arg_{place}": part for place, part in enumerate(arguments)}
                for number, arguments in enumerate(line["arguments"])
            }
            sample["resps"] = sanitize_list(line["resps"])
            sample["filtered_resps"] = sanitize_list(line["filtered_resps"])
            sample["target"] = str(line["target"])
            out.write(json.dumps(sample, default=handle_non_serializable, ensure_ascii=False).encode() + b"\n")


def add_verdicts(lines: list[dict[str, Any]]) -> None:
    """Say in a task's samples, under `verdicts`, what became of each program that was run; nothing where none was."""
    for line in lines:
        # A filter gives the candidates of a document as a list, or a single one as it is.
        found = line["filtered_resps"][0] if line["filtered_resps"] else []
        candidates = found if isinstance(found, list) else [found]
        if all(isinstance(candidate, str) for candidate in candidates):
            said = code_eval.verdicts(candidates, str(line["target"]))
            if said is not None:
                line["verdicts"] = said


def _samples(results: dict[str, Any], task: str, table: dict[str, Any]) -> int:
    for key in ("sample_len", "sample_count"):
        if isinstance(table.get(key), int):
            return int(table[key])
    counts = results.get("n-samples", {})
    if task in counts:
        return int(counts[task]["effective"])
    leaves = _leaves(results, task)
    return sum(int(counts[leaf]["effective"]) for leaf in leaves if leaf in counts)


def _leaves(results: dict[str, Any], group: str) -> set[str]:
    children = results.get("group_subtasks", {}).get(group)
    if not children:
        return {group}
    return {leaf for child in children for leaf in _leaves(results, child)}
