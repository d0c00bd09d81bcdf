"""Commands that act on one evaluation: `retry`, `cancel`, `boost`, `reproduce`."""

from typing import Annotated

import typer

from orchestrator.program import program
from submissions.cli.client import Client
from submissions.cli.numbers import evaluation_number
from submissions.cli.output import answer, answer_json, chat

commands = typer.Typer()

Id = Annotated[int, typer.Argument(metavar="ID", help="Number of the evaluation.", parser=evaluation_number)]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]


@commands.command()
def retry(evaluation: Id, as_json: AsJson = False) -> None:
    """Queue again what failed in an evaluation, once the cause is gone. What was computed is kept."""
    answered = Client().post(f"/evaluations/{evaluation}/retry")
    if as_json:
        answer_json(answered)
        return
    answer(answered["message"])
    chat(f"Follow it: {program()} status {evaluation} --follow")


@commands.command()
def cancel(evaluation: Id, as_json: AsJson = False) -> None:
    """Stop an evaluation for good. What it had computed is kept for others."""
    answered = Client().post(f"/evaluations/{evaluation}/cancel")
    if as_json:
        answer_json(answered)
    else:
        answer(answered["message"])


@commands.command()
def vote(
    evaluation: Id,
    take_back: Annotated[bool, typer.Option("--take-back", help="Take your vote back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Vote for an evaluation's revision: each person's vote counts as an hour of waiting, up to 48."""
    path = f"/evaluations/{evaluation}/vote"
    answered = Client().delete(path) if take_back else Client().put(path)
    if as_json:
        answer_json(answered)
    else:
        answer(answered["message"])


@commands.command()
def boost(
    evaluation: Id,
    days: Annotated[
        int, typer.Option(metavar="N", help="By how many days earlier it counts as made; negative for later.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Give an evaluation another place in the queue, as if it had been made earlier. What runs is not disturbed."""
    answered = Client().post(f"/evaluations/{evaluation}/boost?days={days}")
    if as_json:
        answer_json(answered)
        return
    answer(answered["message"])
    chat(f"Its place: {program()} status {evaluation}")


@commands.command()
def reproduce(evaluation: Id, as_json: AsJson = False) -> None:
    """Print the exact lm_eval command lines and versions of an evaluation's numbers, as a script.

    Works with lm_eval alone where lm_eval has the engine and the data: not for the demo's suite, nor for what vLLM
    computed on a CPU. The script's first lines say so, and it then stops before it installs anything. To compare
    Evalyard with lm_eval on this machine, use `evalyard parity`.

    \b
    evalyard reproduce 41
    evalyard reproduce 41 > again.sh && sh again.sh
    """
    found = Client().get(f"/evaluations/{evaluation}/reproduce")
    if as_json:
        answer_json(found)
    else:
        chat(found["script"].splitlines()[1].removeprefix("# "))
        answer(found["script"])
