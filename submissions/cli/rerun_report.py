"""`evalyard rerun report PLAN`: what a re-run changed, for people, for a spreadsheet or for a script."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.program import as_typed
from submissions.cli.client import Client
from submissions.cli.output import answer, answer_json, chat


class Format(StrEnum):
    MD = "md"
    CSV = "csv"
    JSON = "json"


def report(
    plan: Annotated[
        int, typer.Argument(metavar="PLAN", help="Number of the re-run: see `evalyard rerun list`.", min=1)
    ],
    format: Annotated[Format, typer.Option(help="md for people, csv with a row for each score, json with all.")] = (
        Format.MD
    ),
    output: Annotated[
        Path | None, typer.Option(help="File to write instead of standard output.", dir_okay=False)
    ] = None,
) -> None:
    """Show what a re-run changed: before and after, mean shifts with intervals, ranks, the largest movers.

    \b
    evalyard rerun report 1
    evalyard rerun report 1 --format csv --output rerun-1.csv
    """
    client = Client()
    path = f"/reruns/{plan}/report"
    if output is not None:
        output.write_text(client.get_text(path, format=format.value), encoding="utf-8", newline="")
        chat(f"Wrote {as_typed(output)}.")
    elif format is Format.JSON:
        answer_json(client.get(path))
    else:
        answer(client.get_text(path, format=format.value).replace("\r\n", "\n"))
    chat(client.page(path))
