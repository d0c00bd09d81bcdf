"""Results of a run as lm-eval itself would have written them, so that tools which read its files read these.

DIR/<model>/results_<time>.json            one file, all benchmarks merged
DIR/<model>/samples_<task>_<time>.jsonl    one file for each task
"""

import json
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from workers.sheets import read_lines


def merge_results(results: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One lm-eval results record of several runs that share model and settings and have no task in common.

    Tables by task are united, times are added up, the rest is the first run's.
    """
    merged: dict[str, Any] = {}
    for result in results:
        for key, value in result.items():
            if key == "config" or key not in merged:
                merged.setdefault(key, value)
            elif key == "total_evaluation_time_seconds":
                merged[key] = str(float(merged[key]) + float(value))  # a string, as lm-eval writes it
            elif isinstance(value, dict) and isinstance(merged[key], dict):
                merged[key] = merged[key] | value
    return merged


def write_output(folder: Path, model: str, results: Iterable[Path], *, now: datetime) -> Path:
    """Write the results folders of a run's benchmarks below `folder` in lm-eval's layout; returns the results file."""
    folders = list(results)
    target = folder / sanitized(model)
    target.mkdir(parents=True, exist_ok=True)
    stamp = now.replace(tzinfo=None).isoformat().replace(":", "-")
    merged = merge_results(json.loads((path / "results.json").read_text(encoding="utf-8")) for path in folders)
    file = target / f"results_{stamp}.json"
    file.write_text(json.dumps(merged, indent=2, ensure_ascii=False), encoding="utf-8")
    for path in folders:
        for samples in sorted(path.glob("samples_*.jsonl.zst")):
            task = samples.name.removeprefix("samples_").removesuffix(".jsonl.zst")
            with (target / f"samples_{task}_{stamp}.jsonl").open("wb") as out:
                for line in read_lines(samples):
                    out.write(line + b"\n")
    return file


def sanitized(model: str) -> str:
    """A model's name as lm-eval makes a folder name of it (`lm_eval.utils.sanitize_model_name`)."""
    return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", model)
