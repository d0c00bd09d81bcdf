"""`evalyard rerun …`: evaluate again after a harness upgrade, and choose which version the board shows."""

import re
import time
from typing import Annotated, Any

import typer

from orchestrator.program import program
from submissions.cli.client import Client, segment
from submissions.cli.listing import Listing
from submissions.cli.output import answer, answer_json, chat, on_interrupt
from submissions.cli.rerun_answers import answer_plan, answer_plans
from submissions.cli.rerun_report import report

commands = typer.Typer(
    name="rerun",
    help="""Evaluate again after a harness upgrade: only what changed, and reversibly.

\b
evalyard rerun plan --suite open-llm-v2 --harness 0.4.14      what changed, and what it would cost
evalyard rerun start 1 --first rank --budget 40gpu-hours      do it, after everybody else's work
evalyard rerun switch 1                                       let the board show the new version
evalyard rerun back open-llm-v2                               let it show the old one again""",
    cls=Listing,
    no_args_is_help=True,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]
Plan = Annotated[int, typer.Argument(metavar="PLAN", help="Number of the re-run: see `evalyard rerun list`.", min=1)]
First = Annotated[
    str | None, typer.Option(metavar="ORDER", help="Whose turn is first: rank, votes, age or size; rank by default.")
]
Budget = Annotated[
    str | None, typer.Option(metavar="TIME", help="Device time for inference, e.g. 40gpu-hours; 0 for no limit.")
]
Only = Annotated[
    list[str] | None, typer.Option(metavar="BENCHMARK", help="Do only this benchmark now; may be repeated. ALL: all.")
]
Coverage = Annotated[
    str | None, typer.Option(metavar="PERCENT", help="Switch the board by itself at this coverage, e.g. 98%; 0: never.")
]

PAUSE_SECONDS = 1.0
BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(?:(?:gpu|device)[-\s]?)?(h|hours?|d|days?|min|minutes?)?", re.IGNORECASE)
SECONDS = {"h": 3600, "d": 86400, "m": 60}


@commands.command()
def plan(
    suite: Annotated[str, typer.Option(help="Suite whose finished evaluations are made again.")],
    harness: Annotated[
        str | None, typer.Option(metavar="VERSION", help="lm-eval's version; else the suite file's new version.")
    ] = None,
    first: First = None,
    budget: Budget = None,
    only: Only = None,
    coverage: Coverage = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until everything is compared.")] = True,
    as_json: AsJson = False,
) -> None:
    """Compare what a new harness or suite version changes, and say what evaluating again would cost.

    Nothing is evaluated yet. Needs a harness worker that has the new harness: `evalyard harness add`.

    \b
    evalyard rerun plan --suite open-llm-v2 --harness 0.4.14
    """
    client = Client()
    body = {"suite": suite, "harness": harness, **_choices(first, budget, only, coverage)}
    made = client.post("/reruns", {name: value for name, value in body.items() if value is not None})
    record = made["rerun"]
    if not wait:
        if as_json:
            answer_json(record)
        else:
            answer(made["message"])
            chat(f"Follow it: {program()} rerun status {record['id']}")
        return
    chat(made["message"])
    detail = _follow(client, record["id"])
    if as_json:
        answer_json(detail)
        return
    answer_plan(detail)
    if detail["state"] == "planning":
        raise typer.Exit(1)


@commands.command()
def start(
    plan: Plan,
    first: First = None,
    budget: Budget = None,
    only: Only = None,
    coverage: Coverage = None,
    as_json: AsJson = False,
) -> None:
    """Start a plan, or let it go on with other choices. Whatever is missing is taken up; again is harmless.

    \b
    evalyard rerun start 1 --first votes --budget 40gpu-hours
    evalyard rerun start 1 --only BBH --only GPQA
    """
    found = Client().post(f"/reruns/{plan}/start", _choices(first, budget, only, coverage))
    _answer_move(found, as_json=as_json)


@commands.command()
def status(
    plan: Annotated[int | None, typer.Argument(metavar="PLAN", help="Number of a re-run; else all.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Show how far a plan is, what it found and what failed; or list all plans."""
    client = Client()
    if plan is None:
        answer_plans(client.get("/reruns"), as_json=as_json)
        return
    detail = client.get(f"/reruns/{plan}")
    if as_json:
        answer_json(detail)
        return
    answer_plan(detail)
    chat(client.page(f"/reruns/{plan}"))


@commands.command(name="list")
def list_plans(
    suite: Annotated[str | None, typer.Option(help="Only those of this suite.")] = None, as_json: AsJson = False
) -> None:
    """List the plans, the latest first, and what changed that no plan answers yet."""
    client = Client()
    answer_plans(client.get("/reruns", suite=suite), as_json=as_json)
    for change in () if as_json else client.get("/changes", suite=suite):
        chat(f"{change['sentence']} {change['next_step']}".rstrip())


commands.command()(report)


@commands.command()
def pause(plan: Plan, as_json: AsJson = False) -> None:
    """Give out nothing of a plan any more. What runs is not disturbed."""
    _answer_move(Client().post(f"/reruns/{plan}/pause"), as_json=as_json)


@commands.command()
def resume(plan: Plan, as_json: AsJson = False) -> None:
    """Let a paused plan go on where it was."""
    _answer_move(Client().post(f"/reruns/{plan}/resume"), as_json=as_json)


@commands.command()
def abandon(plan: Plan, as_json: AsJson = False) -> None:
    """End a plan for good: what has not ended is cancelled, and what it has made is kept."""
    _answer_move(Client().post(f"/reruns/{plan}/abandon"), as_json=as_json)


@commands.command()
def switch(
    target: Annotated[str, typer.Argument(metavar="PLAN|SUITE", help="Number of a re-run, or a suite with --to.")],
    to: Annotated[str | None, typer.Option(metavar="VERSION", help="With a suite: the version to show.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let the board show the version that a plan makes: at once, for every reader. `back` undoes it.

    \b
    evalyard rerun switch 1
    evalyard rerun switch open-llm-v2 --to 2
    """
    if target.isdecimal() == (to is not None):
        raise typer.BadParameter("Give the number of a re-run, or a suite with --to VERSION.", param_hint="PLAN|SUITE")
    client = Client()
    if to is None:
        found = client.post(f"/reruns/{int(target)}/switch")
    else:
        found = client.post(f"/suites/{segment(target)}/show?version={segment(to)}")
    _answer_switch(found, as_json=as_json)


@commands.command()
def back(
    suite: Annotated[str, typer.Argument(metavar="PLAN|SUITE", help="A suite, or the number of a re-run of it.")],
    as_json: AsJson = False,
) -> None:
    """Let the board show the version before: exactly as it was."""
    client = Client()
    name = client.get(f"/reruns/{int(suite)}")["suite"] if suite.isdecimal() else suite
    _answer_switch(client.post(f"/suites/{segment(name)}/back"), as_json=as_json)


def budget_seconds(text: str) -> int:
    """Seconds of `40gpu-hours`, `2.5h` or `3 gpu-days`; a plain number counts hours."""
    found = BUDGET.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"'{text}' is no device time. Give e.g. 40gpu-hours.", param_hint="--budget")
    return round(float(found[1]) * SECONDS[(found[2] or "h")[0].lower()])


def coverage_share(text: str) -> float:
    """0.98 of `98%` or `98`; what is at most 1 without a sign is a share itself."""
    number, _, rest = text.strip().partition("%")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if rest or not 0 <= value <= 100:
        raise typer.BadParameter(f"'{text}' is no coverage. Give e.g. 98%.", param_hint="--coverage")
    return value if value <= 1 and "%" not in text else value / 100


def _choices(first: str | None, budget: str | None, only: list[str] | None, coverage: str | None) -> dict[str, Any]:
    if first is not None and first not in ("rank", "votes", "age", "size"):
        raise typer.BadParameter(f"'{first}' is none of rank, votes, age, size.", param_hint="--first")
    chosen = {
        "first": first,
        "budget_seconds": budget_seconds(budget) if budget is not None else None,
        "only": ([] if only == ["ALL"] else only) if only else None,
        "coverage": coverage_share(coverage) if coverage is not None else None,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _follow(client: Client, plan: int) -> dict[str, Any]:
    """The plan once it is compared; says how far it is meanwhile."""
    told = ""
    with on_interrupt(f"Re-run {plan} goes on comparing: {program()} rerun status {plan}"):
        while True:
            record: dict[str, Any] = client.get(f"/reruns/{plan}")
            if record["state"] != "planning":
                return record
            line = f"{record['summary']} {record['sentence']}".strip()
            if line != told:
                chat(line)
                if "no connected worker has" in line:
                    chat(f"It waits for such a worker. A mistyped version? {program()} rerun abandon {plan}")
                told = line
            time.sleep(PAUSE_SECONDS)


def _answer_move(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        answer_json(found)
        return
    answer(found["message"])
    record = found["rerun"]
    if record["state"] in ("planning", "running"):
        chat(f"Follow it: {program()} rerun status {record['id']}")


def _answer_switch(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        answer_json(found)
        return
    answer(found["message"])
    chat(f"Undo it: {program()} rerun back {found['suite']}")
