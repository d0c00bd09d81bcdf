"""Commands that need no server: `evaluate`, and its three stages by hand from files to files.

This module alone brings together the checks of a submission and the workers' stage programs (`.importlinter` holds
it to that); `submissions.cli` adds these commands when one of them is called.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from orchestrator import artifacts, suites
from orchestrator.errors import Refused, next_step
from orchestrator.settings import HubSettings, read_settings
from orchestrator.suites import Part, Suite, SuiteBenchmark
from orchestrator.wire import EngineFamily, Model, PrepareWork
from submissions.cli.output import answer, answer_json, answer_table, chat, complain
from submissions.cli.submit import PRECISIONS, model_address, one_of
from submissions.intake import Accepted, SubmissionRequest, examine
from submissions.problems import fault_of
from workers import pipeline
from workers.engine.info import EngineMissing, device_type
from workers.output import write_output
from workers.weights import ModelUnavailable, Weights

commands = typer.Typer()

UNITS = {"prepare": "requests", "infer": "requests", "score": "benchmark"}
"""What each stage's progress counts."""

TASKS = "tasks"
"""Name of the suite that `--tasks` makes up."""

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A Hub id (org/name) or a local folder.")]
SuiteOption = Annotated[str | None, typer.Option("--suite", "-s", help="A suite: see `evalyard suites`.")]
TasksOption = Annotated[
    str | None, typer.Option("--tasks", "-t", help="lm-eval tasks or groups, separated by commas.", metavar="T[,T…]")
]
ShotsOption = Annotated[
    int | None, typer.Option("--num-fewshot", min=0, help="Examples in each prompt; for --tasks only.")
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Documents for each lm-eval task: a trial, not to be compared.")
]
RevisionOption = Annotated[str | None, typer.Option(help="Branch, tag or commit.")]
EngineOption = Annotated[EngineFamily | None, typer.Option("--engine", help="What computes; vllm by default.")]
PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="|".join(PRECISIONS),
        help="What to load the weights as; auto takes what they were saved in.",
        callback=one_of(PRECISIONS),
    ),
]
TemplateOption = Annotated[
    bool | None,
    typer.Option("--chat-template/--no-chat-template", help="Apply the model's chat template; the suite's default."),
]
ContextOption = Annotated[int | None, typer.Option(min=2, help="Tokens; the model's own limit by default.")]
SettingsOption = Annotated[
    str, typer.Option("--engine-settings", metavar="JSON", help="Engine settings, e.g. '{\"max_num_seqs\": 32}'.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable, on standard output.")]


@commands.command()
def evaluate(
    model: ModelArgument,
    suite: SuiteOption = None,
    tasks: TasksOption = None,
    num_fewshot: ShotsOption = None,
    limit: LimitOption = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for lm-eval's results_*.json and samples_*.jsonl.", file_okay=False)
    ] = None,
    engine: EngineOption = None,
    precision: PrecisionOption = "auto",
    revision: RevisionOption = None,
    chat_template: TemplateOption = None,
    context_limit: ContextOption = None,
    engine_settings: SettingsOption = "{}",
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model here and now: no server, no queue. What one would otherwise use lm_eval for.

    Responses are kept: stopped with Ctrl-C and started again, it goes on where it was; a second run of the same
    thing starts no engine.

    \b
    evalyard evaluate org/name --suite open-llm-v1 --limit 20
    evalyard evaluate ./my-model --tasks arc_easy,gsm8k --num-fewshot 5 --output results/
    """
    started = time.monotonic()
    settings = read_settings(engine=engine)
    chosen = _chosen_suite(settings, suite, tasks, num_fewshot)
    accepted = _examine(
        settings, chosen, model=model, revision=revision, precision=precision, chat_template=chat_template, limit=limit
    )
    folder = (
        settings.data / "local" / "runs" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{artifacts.slug(accepted.model.name)}"
    )
    plan = _plan(
        settings, accepted, folder=folder, context_limit=context_limit, engine_settings=_read_json(engine_settings)
    )
    with _sentences(), Meter(quiet=as_json) as meter:
        run = pipeline.evaluate(plan, meter)
    results = [outcome.results for outcome in run.benchmarks if outcome.results is not None]
    written = write_output(output, accepted.model.name, results, now=datetime.now()) if output and results else None
    seconds = time.monotonic() - started
    report = _report(chosen, run)
    if as_json:
        answer_json(_as_json(accepted, run, report, seconds, written))
    else:
        _print_report(accepted, run, report, seconds)
        if written:
            chat(f"Results and samples: {written.parent}")
    if any(outcome.done is None for outcome in run.benchmarks):
        raise typer.Exit(1)


@commands.command()
def prepare(
    model: ModelArgument,
    output: Annotated[Path, typer.Option(help="New folder for one sheet per benchmark.", file_okay=False)],
    suite: SuiteOption = None,
    tasks: TasksOption = None,
    num_fewshot: ShotsOption = None,
    limit: LimitOption = None,
    engine: EngineOption = None,
    precision: PrecisionOption = "auto",
    revision: RevisionOption = None,
    chat_template: TemplateOption = None,
    context_limit: ContextOption = None,
) -> None:
    """First stage by hand: build the request sheets of a model under a suite. Needs no GPU.

    \b
    evalyard prepare org/name --suite open-llm-v1 --limit 20 --output sheets/
    evalyard infer sheets/ --output responses/                  next, where the engine is
    """
    settings = read_settings(engine=engine)
    chosen = _chosen_suite(settings, suite, tasks, num_fewshot)
    accepted = _examine(
        settings, chosen, model=model, revision=revision, precision=precision, chat_template=chat_template, limit=limit
    )
    _refuse_present(output)
    plan = _plan(settings, accepted, folder=output, context_limit=context_limit, engine_settings={})
    with _sentences(), Meter() as meter:
        done, failed = pipeline.prepare_all(plan, meter)
    for name, one in done.items():
        answer(f"{name}: {one.requests} requests of {one.documents} documents")
    _print_failures(failed)
    chat(f"Next: evalyard infer {output} --output RESPONSES")
    if failed:
        raise typer.Exit(1)


@commands.command()
def infer(
    sheets_folder: Annotated[Path, typer.Argument(metavar="SHEETS", help="What `evalyard prepare` wrote.")],
    output: Annotated[
        Path, typer.Option(help="Folder for the sealed responses; those in it are kept.", file_okay=False)
    ],
    engine: EngineOption = None,
    engine_settings: SettingsOption = "{}",
) -> None:
    """Second stage by hand: compute the responses that no segment in the output folder holds yet.

    Stopped and started again, it goes on where it was.

    \b
    evalyard infer sheets/ --output responses/
    evalyard score sheets/ responses/ --output results/         next
    """
    settings = read_settings(engine=engine)
    found = _read_sheets(sheets_folder)
    first = next(iter(found.values()))
    if first.rules != settings.engine.rules:
        raise Refused(
            f"The sheets in {sheets_folder} follow the rules '{first.rules}', and the engine {settings.engine} needs "
            f"'{settings.engine.rules}'. Prepare them again with --engine {settings.engine}."
        )
    plan = pipeline.Plan(
        model=first.model,
        model_folder=_fetch(settings, first.model, weights=True),
        benchmarks=tuple(work.benchmark for work in found.values()),
        engine=settings.engine,
        device_type=_device_type(settings.engine),
        folder=sheets_folder,
        responses=output,
        settings=_read_json(engine_settings),
    )
    with _sentences(), Meter() as meter:
        done = pipeline.infer_all(plan, meter)
    answer(f"{done.computed} computed, {done.reused} known already, {done.seconds:.1f} s of engine time")
    chat(f"Next: evalyard score {sheets_folder} {output} --output RESULTS")


@commands.command()
def score(
    sheets_folder: Annotated[Path, typer.Argument(metavar="SHEETS", help="What `evalyard prepare` wrote.")],
    responses: Annotated[Path, typer.Argument(metavar="RESPONSES", help="What `evalyard infer` wrote.")],
    output: Annotated[Path, typer.Option(help="Folder for lm-eval's results and samples.", file_okay=False)],
    engine: EngineOption = None,
    as_json: JsonOption = False,
) -> None:
    """Third stage by hand: turn responses into scores with lm-eval's own filters and metrics. Needs no GPU.

    \b
    evalyard score sheets/ responses/ --output results/
    """
    settings = read_settings(engine=engine)
    found = _read_sheets(sheets_folder)
    first = next(iter(found.values()))
    plan = pipeline.Plan(
        model=first.model,
        model_folder=_fetch(settings, first.model, weights=False),
        benchmarks=tuple(work.benchmark for work in found.values()),
        engine=settings.engine,
        device_type=_device_type(settings.engine),
        folder=sheets_folder,
        responses=responses,
        task_folders=first.task_folders,
    )
    with _sentences(), Meter(quiet=as_json) as meter:
        outcomes = pipeline.score_all(plan, meter)
    results = [outcome.results for outcome in outcomes if outcome.results is not None]
    if results:
        written = write_output(output, first.model.name, results, now=datetime.now())
        chat(f"Results and samples: {written.parent}")
    if as_json:
        answer_json([_outcome_json(outcome) for outcome in outcomes])
    else:
        _print_scores(outcomes)
    _print_failures(outcomes)
    if len(results) < len(outcomes):
        raise typer.Exit(1)


class Meter:
    """Progress on the terminal; callable as `pipeline.Report`, from several threads."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=quiet,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> "Meter":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, stage: str, what: str, done: int, total: int) -> None:
        # Inference is one bar whose text changes; prepare and score have one for each benchmark.
        key = stage if stage == "infer" else f"{stage} {what}"
        label = f"{stage:8}{what}"
        if key not in self._bars:
            self._bars[key] = self._progress.add_task(label, total=None, count="")
        count = f"{done:,} of {total:,} {UNITS[stage]}" if total else ""
        self._progress.update(self._bars[key], description=label, completed=done, total=total or None, count=count)


def _chosen_suite(settings: HubSettings, suite: str | None, tasks: str | None, num_fewshot: int | None) -> Suite:
    if (suite is None) == (tasks is None):
        raise typer.BadParameter("Give either --suite or --tasks. `evalyard suites` lists the suites.")
    if suite is not None:
        if num_fewshot is not None:
            raise typer.BadParameter("A suite decides its shots itself. Use --num-fewshot with --tasks.")
        return suites.find_suite(suites.load_suites(settings.suites), suite)
    names = [name.strip() for name in (tasks or "").split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("--tasks names no task.")
    return Suite(
        name=TASKS,
        version="0",
        title="Chosen tasks",
        harness="",
        benchmarks=tuple(
            SuiteBenchmark(name=name, tasks=(name,), num_fewshot=num_fewshot, parts=(Part(task=name, metric="any"),))
            for name in dict.fromkeys(names)
        ),
    )


def _examine(
    settings: HubSettings,
    suite: Suite,
    *,
    model: str,
    revision: str | None,
    precision: str,
    chat_template: bool | None,
    limit: int | None,
) -> Accepted:
    asked = {
        "model": model_address(model),
        "revision": revision,
        "precision": precision,
        "chat_template": chat_template,
        "suite": suite.name,
        "limit": limit,
    }
    try:
        request = SubmissionRequest.model_validate(asked)
    except ValidationError as error:
        raise Refused(" ".join(fault_of(detail).sentence for detail in error.errors())) from error
    return examine(settings, {suite.name: suite}, request=request)


def _plan(
    settings: HubSettings,
    accepted: Accepted,
    *,
    folder: Path,
    context_limit: int | None,
    engine_settings: dict[str, Any],
) -> pipeline.Plan:
    facts = accepted.model
    model = Model(name=facts.name, revision=facts.revision, folder=facts.folder, precision=accepted.precision)
    return pipeline.Plan(
        model=model,
        model_folder=_fetch(settings, model, weights=True),
        benchmarks=tuple(benchmark.as_wire() for benchmark in accepted.suite.benchmarks),
        engine=accepted.engine,
        device_type=_device_type(accepted.engine),
        folder=folder,
        responses=settings.data / "local" / "responses",
        chat_template=accepted.chat_template,
        fewshot_as_multiturn=accepted.suite.fewshot_as_multiturn,
        system_instruction=accepted.suite.system_instruction,
        limit=accepted.limit,
        context_limit=context_limit,
        settings=engine_settings,
        task_folders=suites.task_folders(settings.suites),
    )


def _fetch(settings: HubSettings, model: Model, *, weights: bool) -> Path:
    token = settings.hub_token.get_secret_value() if settings.hub_token else None
    settings.data.mkdir(parents=True, exist_ok=True)
    fetcher = Weights(mirror=settings.models, token=token, digests=settings.data / "local" / "digests.json")
    try:
        return fetcher.resolve(model, weights=weights).folder
    except ModelUnavailable as error:
        raise Refused(error.sentence) from error


def _device_type(engine: EngineFamily) -> str:
    try:
        return device_type(engine)
    except EngineMissing as error:
        raise Refused(str(error)) from error


@contextmanager
def _sentences() -> Iterator[None]:
    """A stage that failed is told with its sentence, the next step and where its log is."""
    try:
        yield
    except pipeline.StageError as error:
        raise Refused(f"{error.sentence} {next_step(error.kind)} Log: {error.log}") from error


def _read_sheets(folder: Path) -> dict[str, PrepareWork]:
    """The work of every sheet below a folder, by benchmark."""
    found: dict[str, PrepareWork] = {}
    for file in sorted((folder / "sheets").glob("*.work.json")):
        if (file.with_name(file.name.removesuffix(".work.json")) / "sheet.json").is_file():
            work = PrepareWork.model_validate_json(file.read_bytes())
            found[work.benchmark.name] = work
    if not found:
        raise Refused(f"There are no sheets in {folder}. Make them: evalyard prepare MODEL --suite S --output {folder}")
    return found


def _refuse_present(folder: Path) -> None:
    if (folder / "sheets").exists():
        raise Refused(f"{folder} holds sheets already. Choose a new folder for --output.")


def _read_json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"--engine-settings is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter('--engine-settings must be a JSON object, e.g. {"max_num_seqs": 32}.')
    return value


def _report(suite: Suite, run: pipeline.RunOutcome) -> dict[str, suites.BenchmarkValue]:
    """The suite's values of the benchmarks that were scored; none for chosen tasks, which have no suite."""
    if suite.name == TASKS:
        return {}
    return {
        outcome.benchmark: suites.evaluate_benchmark(suite.benchmark(outcome.benchmark), outcome.done.scores)
        for outcome in run.benchmarks
        if outcome.done is not None
    }


def _print_report(
    accepted: Accepted, run: pipeline.RunOutcome, values: dict[str, suites.BenchmarkValue], seconds: float
) -> None:
    if values:
        rows = [
            (name, f"{value.value:.2f}", "" if value.stderr is None else f"±{value.stderr:.2f}", f"{value.raw:.2f}")
            for name, value in values.items()
        ]
        average = suites.average(accepted.suite, values)
        rows.append(("Average", "none" if average is None else f"{average:.2f}", "", ""))
        columns = [("Benchmark", "left"), ("Score", "right"), ("", "right"), ("Raw", "right")]
        answer_table(columns, rows, title=f"{accepted.model.name} · {accepted.suite.name} v{accepted.suite.version}")
    else:
        _print_scores(run.benchmarks)
    _print_failures(run.benchmarks)
    if run.infer is not None:
        chat(
            f"{run.infer.computed:,} requests computed, {run.infer.reused:,} known already; "
            f"{run.infer.seconds:.1f} s of engine time, {seconds:.1f} s in all."
        )
    if accepted.limit is not None:
        chat(f"With --limit {accepted.limit} this is a trial: do not compare it with full scores.")


def _print_scores(outcomes: Sequence[pipeline.BenchmarkOutcome]) -> None:
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


def _print_failures(outcomes: Sequence[pipeline.BenchmarkOutcome]) -> None:
    for outcome in outcomes:
        if outcome.failure is not None:
            complain(f"{outcome.benchmark} failed: {outcome.sentence} {next_step(outcome.failure)}")
            if outcome.log is not None:
                chat(f"  Log: {outcome.log}")


def _as_json(
    accepted: Accepted,
    run: pipeline.RunOutcome,
    values: dict[str, suites.BenchmarkValue],
    seconds: float,
    written: Path | None,
) -> dict[str, Any]:
    return {
        "model": accepted.model.name,
        "revision": accepted.model.revision,
        "precision": accepted.precision.value,
        "engine": accepted.engine.value,
        "suite": None if accepted.suite.name == TASKS else accepted.suite.name,
        "suite_version": None if accepted.suite.name == TASKS else accepted.suite.version,
        "limit": accepted.limit,
        "average": suites.average(accepted.suite, values) if values else None,
        "values": {name: asdict(value) for name, value in values.items()},
        "benchmarks": [_outcome_json(outcome) for outcome in run.benchmarks],
        "inference": run.infer.model_dump(mode="json") if run.infer else None,
        "seconds": seconds,
        "results_file": str(written) if written else None,
    }


def _outcome_json(outcome: pipeline.BenchmarkOutcome) -> dict[str, Any]:
    return {
        "benchmark": outcome.benchmark,
        "scores": [value.model_dump(mode="json") for value in outcome.done.scores] if outcome.done else [],
        "failure": outcome.failure,
        "sentence": outcome.sentence,
    }
