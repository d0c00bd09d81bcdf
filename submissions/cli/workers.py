"""The command that an operator gives a worker: `worker drain|pause|resume NAME`."""

from enum import StrEnum
from typing import Annotated

import typer

from orchestrator.program import program
from submissions.cli.client import Client, segment
from submissions.cli.output import answer, answer_json, chat

commands = typer.Typer()


class Action(StrEnum):
    DRAIN = "drain"
    PAUSE = "pause"
    RESUME = "resume"


@commands.command()
def worker(
    action: Annotated[
        Action,
        typer.Argument(
            metavar="drain|pause|resume",
            help="drain: end what runs, take nothing new. pause: give back what runs, too. resume: work again.",
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `evalyard queue` lists it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")] = False,
) -> None:
    """Drain, pause or resume a worker, until you say otherwise. What it gives back costs no retry.

    \b
    evalyard worker drain gpu-7        before its host goes down
    evalyard worker pause gpu-7        when its GPUs are wanted now
    evalyard worker resume gpu-7
    """
    answered = Client().post(f"/workers/{segment(name)}/{action.value}")
    if as_json:
        answer_json(answered)
        return
    answer(answered["message"])
    if action is not Action.RESUME:
        chat(f"See what it still does: {program()} queue")
