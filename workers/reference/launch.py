"""Starts the reference program as a child and waits for what it measured.

`run_fresh` gives each benchmark a process of its own, as a fresh lm-eval run has it; `run` is one process with one
engine for all. The child sees no credentials and ends with its starter.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.artifacts import slug
from orchestrator.wire import Stage
from workers.child import Child
from workers.child_environment import child_environment
from workers.reference.records import ReferenceDone, ReferenceWork

PROGRAM = "workers.reference.run"

Report = Callable[[str, str, int, int], None]
"""Called with "lm-eval", what is happening, requests answered and their number."""


class ReferenceFailed(Exception):
    """lm-eval itself could not evaluate: a sentence with its reason, and where its log is."""

    def __init__(self, sentence: str, log: Path) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.log = log


def run(
    work: ReferenceWork,
    out: Path,
    report: Report = lambda *_: None,
    *,
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> ReferenceDone:
    """All benchmarks of `work` in one process with one engine. Ctrl-C ends the process.

    Raises:
        ReferenceFailed: it ended without results.
    """
    out.mkdir(parents=True, exist_ok=True)
    work_file, log = out.with_name(out.name + ".work.json"), out.with_name(out.name + ".log")
    work_file.write_text(work.model_dump_json(indent=2), encoding="utf-8")
    held = log.open("a+b")
    process = subprocess.Popen(
        [python, "-m", PROGRAM, str(work_file), str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=held,
        # Prepare, not infer: lm-eval loads its datasets itself, from where the harness has them.
        env=child_environment(Stage.PREPARE) | dict(environment or {}),
        start_new_session=True,
    )
    child = Child(process, stage=Stage.INFER, log=held)
    last = _listen(child, report)
    if last.get("event") == "completed":
        return ReferenceDone.model_validate(last["done"])
    reason = last.get("sentence") or f"its process ended with exit code {child.outcome().exit_code} and no word."
    raise ReferenceFailed(f"lm-eval's {work.back_end} back end gave no results: {reason}", log)


def run_fresh(
    work: ReferenceWork,
    out: Path,
    report: Report = lambda *_: None,
    *,
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> dict[str, ReferenceDone | ReferenceFailed]:
    """Each benchmark of `work` in a process of its own, one after the other; one that fails does not stop the rest."""
    found: dict[str, ReferenceDone | ReferenceFailed] = {}
    for benchmark in work.benchmarks:
        alone = work.model_copy(update={"benchmarks": (benchmark,)})
        try:
            found[benchmark.name] = run(
                alone, out / slug(benchmark.name), report, environment=environment, python=python
            )
        except ReferenceFailed as failed:
            found[benchmark.name] = failed
    return found


def _listen(child: Child, report: Report) -> dict[str, Any]:
    """Pass progress on until the program ends; its last event, empty if it never spoke."""
    last: dict[str, Any] = {}
    phase = ""
    try:
        while child.running():
            for last in child.events(timeout=0.5):
                if last["event"] == "phase":
                    phase = last["phase"]
                    report("lm-eval", phase, 0, 0)
                elif last["event"] == "progress":
                    report("lm-eval", phase, last["done"], last["total"])
    except BaseException:
        child.kill()
        raise
    return last
