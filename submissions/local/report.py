"""What the commands that need no server say: progress while they run, then values, scores and failures."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from orchestrator.errors import Refused, next_step
from orchestrator.narrator import Narrator, every_second
from orchestrator.results.values import BenchmarkValue, average, evaluate_benchmark
from orchestrator.suites import Suite
from orchestrator.wire import FailureKind, InferDone, Model
from submissions.cli.output import answer_table, chat, complain
from submissions.examining import Accepted
from submissions.local.plan import TASKS, describe_model
from workers.local import pipeline

UNITS = {"prepare": "requests", "infer": "requests", "score": "benchmark", "lm-eval": "requests"}
"""What each stage's progress counts."""


class Meter:
    """Progress, bars on a terminal or lines in a log; callable as `pipeline.Report` from several threads."""

    def __init__(self, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._lines = not quiet and not console.is_terminal
        self._narrator = Narrator(chat)
        self._stand: dict[str, tuple[str, str, bool]] = {}
        """Where there is no terminal: a thing's line, its count, and whether it is over."""
        self._ending = ExitStack()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or self._lines,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> "Meter":
        self._progress.start()
        if self._lines:
            self._ending.enter_context(every_second(self._say))
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()
        self._progress.stop()

    def __call__(self, stage: str, what: str, done: int, total: int) -> None:
        # Inference is one bar whose text changes; prepare and score have one for each benchmark.
        key = stage if stage == "infer" else f"{stage} {what}"
        if done == pipeline.FAILED:
            self._tell(key, f"{stage:8}{what}  failed", "", over=True)
            if key in self._bars:
                self._progress.update(self._bars[key], count="failed")
            return
        label = f"{stage:8}{what}"
        if key not in self._bars:
            self._bars[key] = self._progress.add_task(label, total=None, count="")
        count = f"{done:,} of {total:,} {UNITS[stage]}" if total else ""
        over = bool(total) and done >= total
        self._tell(key, f"{label}  {count}" if over else label, "" if over else f"  {count}".rstrip(), over=over)
        self._progress.update(self._bars[key], description=label, completed=done, total=total or None, count=count)

    def _tell(self, key: str, line: str, count: str, *, over: bool) -> None:
        """A line when something begins or ends; what goes on is told after each silence."""
        if self._lines:
            self._stand.pop(key, None)  # what was heard of last comes last
            self._stand[key] = line, count, over
            self._say()

    def _say(self) -> None:
        stand = dict(self._stand)
        self._narrator.tell(
            {key: line for key, (line, _, _) in stand.items()},
            at_work=next((key for key, (_, _, over) in reversed(stand.items()) if not over), None),
            details={key: count for key, (_, count, _) in stand.items()},
        )


@contextmanager
def in_sentences(model: Model) -> Iterator[None]:
    """A stage that failed is told with its sentence, the next step and where its log is."""
    try:
        yield
    except pipeline.StageError as error:
        raise Refused(f"{error.sentence} {_next_step(error.kind, model)} Log: {error.log}") from error


def values_of(suite: Suite, run: pipeline.RunOutcome) -> dict[str, BenchmarkValue]:
    """The suite's values of the benchmarks that were scored; none for chosen tasks, which have no suite."""
    if suite.name == TASKS:
        return {}
    return {
        outcome.benchmark: evaluate_benchmark(suite.benchmark(outcome.benchmark), outcome.done.scores)
        for outcome in run.benchmarks
        if outcome.done is not None
    }


def print_report(
    accepted: Accepted, run: pipeline.RunOutcome, values: dict[str, BenchmarkValue], seconds: float
) -> None:
    if values:
        rows = [
            (name, f"{value.value:.2f}", "" if value.stderr is None else f"±{value.stderr:.2f}", f"{value.raw:.2f}")
            for name, value in values.items()
        ]
        total = average(accepted.suite, values)
        rows.append(("Average", "none" if total is None else f"{total:.2f}", "", ""))
        columns = [("Benchmark", "left"), ("Score", "right"), ("", "right"), ("Raw", "right")]
        answer_table(columns, rows, title=f"{accepted.model.name} · {accepted.suite.name} v{accepted.suite.version}")
    else:
        print_scores(run.benchmarks)
    print_failures(run.benchmarks, describe_model(accepted))
    if run.infer is not None:
        chat(f"Requests: {in_words(run.infer)}; {seconds:.1f} s in all.")
        print_notes(run.infer.restarts)
    if accepted.limit is not None:
        chat(f"With --limit {accepted.limit} this is a trial: do not compare it with full scores.")


def in_words(done: InferDone) -> str:
    """What inference had to do."""
    counts = f"{done.computed:,} computed, {done.reused:,} known already"
    if not done.computed and not done.seconds and not done.restarts:
        return f"{counts}: no engine was started"
    return f"{counts}, {done.seconds:.1f} s of engine time"


def print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        chat(note)


def print_scores(outcomes: Sequence[pipeline.BenchmarkOutcome]) -> None:
    columns = [
        ("Task", "left"),
        ("Filter", "left"),
        ("Metric", "left"),
        ("Value", "right"),
        ("", "right"),
        ("n", "right"),
    ]
    rows = [
        (
            value.task,
            value.filter,
            value.metric,
            f"{value.value:.4f}",
            "" if value.stderr is None else f"±{value.stderr:.4f}",
            str(value.samples),
        )
        for outcome in outcomes
        if outcome.done is not None
        for value in outcome.done.scores
    ]
    if rows:
        answer_table(columns, rows)


def print_failures(outcomes: Sequence[pipeline.BenchmarkOutcome], model: Model) -> None:
    for outcome in outcomes:
        if outcome.failure is not None:
            complain(f"{outcome.benchmark} failed: {outcome.sentence} {_next_step(outcome.failure, model)}")
            if outcome.log is not None:
                chat(f"  Log: {outcome.log}")


def _next_step(kind: FailureKind, model: Model) -> str:
    return next_step(kind, is_folder=model.folder is not None and "/" not in model.name)


def as_json_record(
    accepted: Accepted,
    run: pipeline.RunOutcome,
    values: dict[str, BenchmarkValue],
    *,
    seconds: float,
    written: Path | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    return {
        "model": accepted.model.name,
        "revision": accepted.model.revision,
        "precision": accepted.precision.value,
        "engine": accepted.engine.value,
        "suite": None if accepted.suite.name == TASKS else accepted.suite.name,
        "suite_version": None if accepted.suite.name == TASKS else accepted.suite.version,
        "limit": accepted.limit,
        "average": average(accepted.suite, values) if values else None,
        "values": {name: asdict(value) for name, value in values.items()},
        "benchmarks": [outcome_json(outcome) for outcome in run.benchmarks],
        "inference": run.infer.model_dump(mode="json") if run.infer else None,
        "seconds": seconds,
        "results_file": str(written.resolve()) if written else None,
        "notes": list(notes),
    }


def outcome_json(outcome: pipeline.BenchmarkOutcome) -> dict[str, Any]:
    return {
        "benchmark": outcome.benchmark,
        "scores": [value.model_dump(mode="json") for value in outcome.done.scores] if outcome.done else [],
        "failure": outcome.failure,
        "sentence": outcome.sentence,
    }
