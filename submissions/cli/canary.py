"""`evalyard canary …`: watch that new engine and driver versions answer as the stored responses say."""

from typing import Annotated, Any

import typer

from orchestrator.program import program
from submissions import words
from submissions.cli.client import Client
from submissions.cli.listing import Listing
from submissions.cli.output import answer, answer_json, answer_table, chat

commands = typer.Typer(
    name="canary",
    help="""Let every new engine or driver version answer a pinned model first, and compare.

\b
evalyard canary set 41              take a sample of a finished evaluation's requests
evalyard canary status              what each build answered, and how far it drifted
evalyard canary run gpu-7           once more, on that worker's build
evalyard canary accept 3f2a91c07b4e let a build work all the same
evalyard canary off                 let every build work unasked""",
    cls=Listing,
    no_args_is_help=True,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]


@commands.command("set")
def set_canary(
    evaluation: Annotated[int, typer.Argument(metavar="EVALUATION", help="Number of a finished evaluation.", min=1)],
    requests: Annotated[int, typer.Option(help="How many of its requests to ask, about.", min=20, max=5000)] = 300,
    as_json: AsJson = False,
) -> None:
    """Make a finished evaluation the canary: a small model, with choices and generated texts, tells most.

    From then on each build of its engine (version, driver, device) gets nothing else until it has answered the sample.
    """
    _answer(Client().post("/canaries", {"evaluation": evaluation, "requests": requests}), as_json=as_json)
    if not as_json:
        chat(f"Follow it: {program()} canary status")


@commands.command()
def status(as_json: AsJson = False) -> None:
    """Show the canaries and, for each engine build, how far its answers are from the stored ones."""
    found = Client().get("/canaries")
    if as_json:
        answer_json(found)
        return
    if not any(one["ended_at"] is None for one in found["canaries"]):
        answer(f"No canary is set: new engine versions get work at once. Set one: {program()} canary set EVALUATION.")
    for one in found["canaries"]:
        _answer_canary(one)
    if found["kept_out"]:
        chat(f"Get nothing but the canary now: {', '.join(found['kept_out'])}.")


@commands.command()
def run(
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="As `evalyard queue` lists it.")],
    as_json: AsJson = False,
) -> None:
    """Run the canary once more on a worker's build. Whether it may work stays as it is until it has answered."""
    _answer(Client().post("/canaries/run", {"worker": worker}), as_json=as_json)


@commands.command()
def accept(
    build: Annotated[str, typer.Argument(metavar="BUILD", help="As `evalyard canary status` lists it.")],
    as_json: AsJson = False,
) -> None:
    """Let a build work, whatever the canary found. It is kept who said so, and when."""
    _answer(Client().post("/canaries/accept", {"build": build}), as_json=as_json)


@commands.command()
def off(
    canary: Annotated[int | None, typer.Argument(metavar="CANARY", help="Number of one; else all.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """End a canary, or all of them. What they found is kept."""
    _answer(Client().post("/canaries/off", {"canary": canary}), as_json=as_json)


def _answer(answered: dict[str, Any], *, as_json: bool) -> None:
    answer_json(answered) if as_json else answer(answered["message"])


def _answer_canary(one: dict[str, Any]) -> None:
    what = (
        f"Canary {one['id']}: {one['model']} (evaluation {one['evaluation']}), {one['engine']} on {one['device_type']}"
    )
    told = f"{words.count(one['requests'], 'request')} of {words.count(one['documents'], 'document')}"
    answer(f"{what}, {one['state']}. {told if one['requests'] else one['sentence'] or 'Its sample is being taken.'}")
    for reference in one["reference"]:
        answer(f"  stored answers by {reference}")
    columns = [("build", "left"), ("", "left"), ("engine, device, driver", "left"), ("answers", "left"), ("", "left")]
    rows = [(run["build"], run["state"], run["what"], _found(run), _when(run)) for run in one["runs"]]
    if rows:
        answer_table(columns, rows)


def _found(run: dict[str, Any]) -> str:
    """What a run found; of one that drifted, beyond which bounds."""
    return f"{run['text']}. {run['sentence']}" if run["state"] == "drifted" else run["text"]


def _when(run: dict[str, Any]) -> str:
    by = f" by {run['made_by']}" if run["made_by"] else ""
    on = f" on {run['worker']}" if run["worker"] else ""
    return f"{(run['ended_at'] or run['made_at'])[:16].replace('T', ' ')}{on}{by}"
