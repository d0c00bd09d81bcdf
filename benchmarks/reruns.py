"""What a plan to evaluate again costs once its sheets are there: all classes compared, everything added up.

    python -m benchmarks.reruns [--evaluations 7500] [--classes 60] [--database-url postgresql://…]

A database with finished evaluations of a suite of twelve benchmarks, as large as those of the Open LLM Leaderboard's
two suites, and for each class of models (tokenizer, template, context limit) the small files of facts beside both
sheets. Counted is everything from the first look at the plan to the moment that it is ready, in a process of its own,
with that process's largest memory. The new harness has changed two benchmarks' scorers and a tenth of two others'
requests.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import zstandard
from sqlalchemy import Engine, insert
from sqlmodel import col, select

from orchestrator import db
from orchestrator.artifacts import ArtifactStore
from orchestrator.lifecycle import EvaluationState, JobState, RerunState
from orchestrator.reruns import plans
from orchestrator.reruns.facts import FACTS_FILE, FORMAT
from orchestrator.reruns.runner import Runner
from orchestrator.suite_versions import record_suites
from orchestrator.suites import Part, Suite, SuiteBenchmark
from orchestrator.tables import Attempt, Evaluation, Job, Rerun, RerunBenchmark, Score, Speed, Submission
from orchestrator.wire import EngineFamily, Precision, Stage

REQUESTS = {
    "ARC": 4_687, "HellaSwag": 40_168, "MMLU": 56_168, "TruthfulQA": 9_996, "WinoGrande": 2_534, "GSM8K": 1_319,
    "IFEval": 541, "BBH": 26_000, "MATH": 1_324, "GPQA": 4_768, "MuSR": 3_000, "MMLU-Pro": 113_000,
}  # fmt: skip
"""Requests of each benchmark, about those of the Open LLM Leaderboard."""
RESCORED = ("BBH", "IFEval")
CHANGED = ("MMLU-Pro", "MATH")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BATCH = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=7_500)
    parser.add_argument("--classes", type=int, default=60)
    parser.add_argument("--scale", type=float, default=1.0, help="of the requests of each benchmark")
    parser.add_argument("--database-url", default="", help="an empty PostgreSQL database; SQLite otherwise")
    parser.add_argument("--folder", type=Path, help="where to write, on the file system to measure")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.database_url, given.measure)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        print(json.dumps(run(given, Path(folder)), indent=2))


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make everything, then measure in a process of its own."""
    url = given.database_url or f"sqlite:///{folder / 'evalyard.db'}"
    engine = db.make_engine(url)
    db.migrate(engine)
    fill(engine, folder / "artifacts", evaluations=given.evaluations, classes=given.classes, scale=given.scale)
    engine.dispose()
    command = [sys.executable, "-m", "benchmarks.reruns", "--measure", str(folder / "artifacts"), "--database-url", url]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"evaluations": given.evaluations, "benchmarks": len(REQUESTS), "classes": given.classes} | found


def measure(url: str, artifacts: Path) -> dict[str, Any]:
    """Look at the plan until it is ready; seconds, largest memory in bytes, what was found."""
    engine = db.make_engine(url)
    suite = make_suite()
    runner = Runner(engine, {suite.name: suite}, ArtifactStore(artifacts.as_uri(), read_only=True))
    began, worked = time.monotonic(), time.process_time()
    while runner.look(NOW):
        pass
    seconds, cpu = time.monotonic() - began, time.process_time() - worked
    with db.session(engine, read_only=True) as session:
        (plan,) = session.exec(select(Rerun)).all()
        verdicts = session.exec(select(RerunBenchmark.verdict)).all()
    assert plan.state is RerunState.READY, plan.state
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        "comparisons": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        "estimate": {name: plan.estimate[name] for name in ("evaluations", "carried", "scored", "inferred", "cells")},
    }


def make_suite(version: str = "1") -> Suite:
    return Suite(
        name="both",
        version=version,
        title="Both suites",
        harness="lm_eval 0.4.13",
        benchmarks=tuple(
            SuiteBenchmark(name=name, tasks=(name.lower(),), parts=(Part(task=name.lower(), metric="acc"),))
            for name in REQUESTS
        ),
    )


def fill(engine: Engine, artifacts: Path, *, evaluations: int, classes: int, scale: float = 1.0) -> int:
    """Finished evaluations, the facts of both sheets of each class, and a plan whose new sheets are prepared."""
    suite = make_suite()
    with db.session(engine) as session:
        record_suites(session, [suite], now=NOW)
    facts = _write_facts(artifacts, classes, scale=scale)
    _insert_finished(engine, suite, evaluations=evaluations, classes=classes)
    with db.session(engine) as session:
        session.add(_speed("a GPU", suite, size=32, requests=10**6, seconds=1e4))
        session.add(_speed("score", suite, size=-1, requests=100, seconds=3e3))
        made = plans.make_plan(session, {suite.name: suite}, suite=suite.name, harness="0.4.14", now=NOW)
        plan = made.id
    assert plan is not None
    runner = Runner(engine, {suite.name: suite}, ArtifactStore(artifacts.as_uri(), read_only=True))
    while runner.look(NOW):
        pass
    with db.session(engine) as session:
        for job in session.exec(select(Job).join(Evaluation).where(Evaluation.rerun_id == plan)):
            if job.stage is Stage.PREPARE:
                session.add(_prepared(job, facts))
    return plan


def _prepared(job: Job, facts: dict[str, str]) -> Job:
    job.state = JobState.COMPLETED
    of = (job.evaluation_id - 1) % _classes_of(facts)
    job.result = _result(job.benchmark, of, sheet=f"sheets/new/{of}/{job.benchmark}")
    return job


def _classes_of(facts: dict[str, str]) -> int:
    return int(facts["classes"])


def _result(benchmark: str, of: int, *, sheet: str) -> dict[str, Any]:
    return {
        "stage": "prepare",
        "sheet": sheet,
        "digest": "0" * 64,
        "requests": REQUESTS[benchmark],
        "documents": REQUESTS[benchmark] // 4,
        "truncated": 0,
        "longest": 2048,
        "identity": {"weights": f"{of:040x}", "dtype": "bfloat16", "context_limit": 4096, "quantization": None},
        "provenance": {
            "harness": "lm_eval 0.4.13",
            "judged_by": "j",
            "tasks": {benchmark.lower(): {"prompts": "0" * 32}},
        },
        "sheet_class": f"{of:032x}",
    }


def _write_facts(artifacts: Path, classes: int, *, scale: float) -> dict[str, str]:
    """Both facts files of every class; those of other classes have other requests."""
    draw = random.Random(1)  # noqa: S311  # nothing secret is drawn
    for name, requests in REQUESTS.items():
        count = max(1, round(requests * scale))
        for of in range(classes):
            block = draw.randbytes(16 * count)
            addresses = sorted(block[place : place + 16] for place in range(0, len(block), 16))
            newer = list(addresses)
            if name in CHANGED:
                newer[: count // 10] = [draw.randbytes(16) for _ in range(count // 10)]
                newer.sort()
            code = "c2" if name in RESCORED else "c1"
            for side, asked, judged in (("old", addresses, "c1"), ("new", newer, code)):
                folder = artifacts / "sheets" / side / str(of) / name
                folder.mkdir(parents=True)
                (folder / FACTS_FILE).write_bytes(_pack(name, of, asked, code=judged))
    return {"classes": str(classes)}


def _pack(benchmark: str, of: int, addresses: list[bytes], *, code: str) -> bytes:
    scoring = {"code": code, "core": "k", "packages": {}, "probe": "p"}
    task = {
        "version": "1", "documents": len(addresses), "content": "d", "targets": "t", "instances": "i",
        "dataset": "data", "scoring": scoring, "requests": len(addresses),
    }  # fmt: skip
    identity = {"weights": f"{of:040x}", "dtype": "bfloat16"}
    header = {
        "format": FORMAT, "benchmark": benchmark, "harness": "lm_eval", "sheet_class": f"{of:032x}",
        "identity": identity, "judged_by": "j", "groups": "g", "tasks": {benchmark.lower(): task},
    }  # fmt: skip
    entries = b"".join(address + (400).to_bytes(4, "little") for address in addresses)
    return zstandard.ZstdCompressor(level=1).compress(json.dumps(header).encode() + b"\n" + entries)


def _speed(device: str, suite: Suite, *, size: int, requests: int, seconds: float) -> Speed:
    return Speed(
        engine=EngineFamily.VLLM,
        device=device,
        suite=suite.name,
        size_class=size,
        runs=100,
        requests=requests,
        engine_seconds=seconds,
    )


def _insert_finished(engine: Engine, suite: Suite, *, evaluations: int, classes: int) -> None:
    names = [benchmark.name for benchmark in suite.benchmarks]
    for start in range(0, evaluations, BATCH // 10):
        numbers = range(start + 1, min(start + BATCH // 10, evaluations) + 1)
        with engine.begin() as connection:
            connection.execute(insert(Submission), [_submission(number) for number in numbers])
            connection.execute(insert(Evaluation), [_evaluation(number, suite) for number in numbers])
            jobs = [job for number in numbers for job in _jobs(number, names, classes)]
            connection.execute(insert(Job), jobs)
            scores = [score for number in numbers for score in _scores(number, names)]
            connection.execute(insert(Score), scores)
    with db.session(engine) as session:
        assert session.exec(select(Attempt.id).limit(1)).first() is None
        assert session.exec(select(Evaluation.id).order_by(col(Evaluation.id).desc()).limit(1)).first() == evaluations


def _submission(number: int) -> dict[str, Any]:
    return {
        "id": number, "model": f"org/model-{number}", "revision": f"{number:040x}", "precision": Precision.BFLOAT16,
        "parameters": 7_000_000_000, "submitted_at": NOW, "facts": {"weight_bytes": 14_000_000_000},
        "weight_type": "original", "model_type": "unknown", "chat_template": False, "submitter": "local",
    }  # fmt: skip


def _evaluation(number: int, suite: Suite) -> dict[str, Any]:
    return {
        "id": number, "submission_id": number, "suite": suite.name, "suite_version": suite.version,
        "engine": EngineFamily.VLLM, "key": str(number), "state": EvaluationState.FINISHED,
        "average": (number * 7919 % 10_000) / 100, "created_at": NOW - timedelta(minutes=number), "sentence": "",
    }  # fmt: skip


def _jobs(number: int, names: list[str], classes: int) -> list[dict[str, Any]]:
    of = (number - 1) % classes
    common = {"evaluation_id": number, "state": JobState.COMPLETED, "created_at": NOW}
    made = [
        common | {
            "stage": Stage.PREPARE, "benchmark": name, "identity": {},
            "result": _result(name, of, sheet=f"sheets/old/{of}/{name}"),
        }
        for name in names
    ]  # fmt: skip
    identity = {"weights": f"{number:040x}", "engine": "vllm", "device_type": "cuda"}
    made.append(common | {"stage": Stage.INFER, "benchmark": "", "identity": identity, "result": {}})
    scored = {"provenance": {"judged_by": "j"}}
    made += [common | {"stage": Stage.SCORE, "benchmark": name, "identity": {}, "result": scored} for name in names]
    return made


def _scores(number: int, names: list[str]) -> list[dict[str, Any]]:
    # Jobs of one evaluation are numbered in the order in which they were inserted.
    first = (number - 1) * (2 * len(names) + 1) + len(names) + 2
    return [
        {
            "evaluation_id": number, "benchmark": name, "task": "", "metric": metric, "filter": "", "value": 50.0,
            "samples": 100, "job_id": first + place, "attempt_id": "a", "provenance": {}, "created_at": NOW,
        }
        for place, name in enumerate(names)
        for metric in ("value", "raw")
    ]  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    main()
