"""The command about clusters that workers are launched on: `cluster status`, `cluster pause|resume NAME`."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from submissions.cli.client import Client, segment
from submissions.cli.output import answer, answer_json, paused_line

commands = typer.Typer()


class Action(StrEnum):
    STATUS = "status"
    PAUSE = "pause"
    RESUME = "resume"


@commands.command()
def cluster(
    action: Annotated[
        Action,
        typer.Argument(
            metavar="status|pause|resume",
            help="status: what each cluster shows, and why workers are launched there or not. pause: launch nothing "
            "more. resume: launch again.",
        ),
    ] = Action.STATUS,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which cluster to pause or resume.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")] = False,
) -> None:
    """Show why workers are launched on Slurm or Kubernetes or why not; pause launching and resume it.

    \b
    evalyard cluster status
    evalyard cluster pause a100
    evalyard cluster resume a100
    """
    if (action is Action.STATUS) == bool(name):
        raise typer.BadParameter(
            f"Name the cluster to {action}." if not name else "status shows all and takes no name."
        )
    client = Client()
    if action is not Action.STATUS:
        answered = client.post(f"/clusters/{segment(name)}/{action.value}")
        answer_json(answered) if as_json else answer(answered["message"])
        return
    found = client.get("/clusters")
    if as_json:
        answer_json(found)
    elif not found:
        answer(
            "No cluster is looked after. Write a clusters file (docs/slurm.md, docs/kubernetes.md), restart the hub."
        )
    for one in found if not as_json else ():
        _answer_cluster(one)


def _answer_cluster(one: dict[str, Any]) -> None:
    answer(f"{one['name']} ({one['kind']}): {one['verdict']}")
    if one["paused"]:
        how = paused_line(f"cluster resume {one['name']}", by=one.get("paused_by"), since=one.get("paused_since"))
        answer(f"  {how}")
    if one["gpus"]:
        answer(
            f"  {one['gpus']}: {one['idle']} of {one['total']} idle, {one['others_waiting']} jobs of others wait; "
            f"workers: {one['up']} up, {one['starting']} starting"
        )
    for note in one["notes"]:
        answer(f"  Note: {note}")
    for failure in one["failures"]:
        answer(f"  Failed: {failure}")
