"""One timed run, of lm-eval or of Evalyard: always a fresh process, a fresh folder and nothing computed before.

Engine time is the time spent answering. For lm-eval it is what its model's request methods take, which includes their
tokenisation (it is subtracted in `Measured.engine_seconds`); for Evalyard it is the infer stage from the first request
fed to the last one sealed. Total time is the whole command, imports and start included.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.works import Work
from workers.reference import launch
from workers.reference.records import BackEnd, ReferenceBenchmark, ReferenceWork


@dataclass(frozen=True)
class Measured:
    engine_seconds: float
    total_seconds: float
    peak_bytes: int
    """Memory of the largest process."""
    tokens_computed: int | None = None
    tokens_reused: int | None = None


class RunFailed(Exception):
    """A run gave no result; the message says where its log is."""


def lm_eval(
    model: Path, work: Work, *, back_end: BackEnd, batch_size: str, limit: int, dtype: str, folder: Path
) -> Measured:
    """lm-eval's own back end: all benchmarks of the work in one process with one engine."""
    benchmarks = tuple(
        ReferenceBenchmark(**benchmark.model_dump(), limit=limit, fewshot_as_multiturn=False)
        for benchmark in work.benchmarks
    )
    asked = ReferenceWork(
        back_end=back_end,
        model_name=model.name,
        model_folder=str(model),
        dtype=dtype,
        benchmarks=benchmarks,
        batch_size=batch_size,
    )
    started = time.monotonic()
    try:
        done = launch.run(asked, folder)
    except launch.ReferenceFailed as error:
        raise RunFailed(f"{error.sentence} Log: {error.log}") from error
    encoding = sum(benchmark.encode_seconds for benchmark in done.benchmarks)
    return Measured(done.request_seconds - encoding, time.monotonic() - started, done.peak_rss_bytes)


def evalyard(model: Path, work: Work, *, limit: int, dtype: str, folder: Path) -> Measured:
    """`evalyard evaluate` in an empty data folder."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "submissions.cli", "evaluate", str(model), *_chosen(work)]
    command += ["--precision", dtype, "--limit", str(limit), "--json"]
    environment = os.environ | {"EVALYARD_DATA": str(folder / "data")}
    started = time.monotonic()
    with (folder / "out.json").open("wb") as out, (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    if process.returncode != 0:
        raise RunFailed(f"evalyard evaluate ended with {process.returncode}. Log: {folder / 'log'}")
    inference = json.loads((folder / "out.json").read_text(encoding="utf-8"))["inference"]
    if inference["reused"]:
        raise RunFailed(f"{inference['reused']} requests were known before: the data folder was not empty.")
    return Measured(
        inference["seconds"],
        seconds,
        usage.ru_maxrss * 1024,
        tokens_computed=inference["tokens_computed"],
        tokens_reused=inference["tokens_reused"],
    )


def _chosen(work: Work) -> list[str]:
    if work.suite is not None:
        return ["--suite", work.suite]
    (benchmark,) = work.benchmarks
    return ["--tasks", ",".join(benchmark.tasks), "--num-fewshot", str(benchmark.num_fewshot)]
