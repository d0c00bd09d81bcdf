"""`evalyard batch`: many models from a file, or request files of the Open LLM Leaderboard; it waits where it must."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from submissions.batches import Line, read_batch
from submissions.cli.client import ApiRefused, Client
from submissions.cli.numbers import documents
from submissions.cli.output import answer, answer_json, chat
from submissions.cli.submit import model_address
from submissions.request import DEFAULT_SUITE

commands = typer.Typer()

WAITED_FOR = (429, 503)
"""Too many in too short a time, or the Hub is away: neither is the model's fault."""
LONGEST_PAUSE = 300.0


@commands.command()
def batch(
    path: Annotated[Path, typer.Argument(metavar="FILE", exists=True, help="Models: .txt, .csv, .jsonl; or a folder.")],
    suite: Annotated[str, typer.Option(help="For lines that name none: see `evalyard suites`.")] = DEFAULT_SUITE,
    limit: Annotated[
        int | None, typer.Option(metavar="N", parser=documents, help="Documents for each task: trials, never ranked.")
    ] = None,
    check_only: Annotated[bool, typer.Option("--check-only", help="Check every model and submit none.")] = False,
    patience: Annotated[
        float, typer.Option(metavar="MINUTES", min=0, help="How long to wait for a Hub that is away, or for a limit.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")] = False,
) -> None:
    """Submit every model of a file; those that are there already are named.

    FILE has a model on each line (`org/name` or `org/name@revision`); or rows with the request's fields (.csv), or
    requests (.jsonl); or is a folder with request files of the Open LLM Leaderboard. While the Hub is away, or a limit
    is reached, it waits and goes on. Running it again submits nothing twice. Exit code 1 when any was refused.

    \b
    evalyard batch models.txt --suite open-llm-v1
    evalyard batch models.csv --check-only
    evalyard batch requests/acme --suite open-llm-v2
    """
    client, done = Client(), []
    for line in read_batch(path):
        done.append(one := _submit(client, line, defaults={"suite": suite, "limit": limit}, check_only=check_only,
                                   patience=patience * 60))  # fmt: skip
        if not as_json:
            answer(f"{one['where']}: {one['message']}")
    refused = sum(not one["accepted"] for one in done)
    if as_json:
        answer_json(done)
    else:
        verb = "would be accepted" if check_only else "accepted"
        chat(f"{len(done) - refused} of {len(done)} {verb}, {refused} refused.")
    raise typer.Exit(1 if refused else 0)


def _submit(
    client: Client, line: Line, *, defaults: dict[str, Any], check_only: bool, patience: float
) -> dict[str, Any]:
    if line.fault:
        return {"where": line.where, "accepted": False, "message": line.fault}
    asked = {name: value for name, value in defaults.items() if value is not None} | line.asked
    asked["model"] = model_address(str(asked["model"]))
    try:
        found = _patiently(lambda: client.post("/checks" if check_only else "/evaluations", asked), patience=patience)
    except ApiRefused as refused:
        return {"where": line.where, "accepted": False, "message": refused.sentence, "problem": refused.problem}
    if check_only:
        faults = [one["sentence"] for one in found["findings"] if one["outcome"] == "fault"]
        message = " ".join([found["message"], *faults])
        return {"where": line.where, "accepted": found["accepted"], "message": message, "check": found}
    return {"where": line.where, "accepted": True, "message": found["message"], "evaluation": found["evaluation"]["id"]}


def _patiently(ask: Callable[[], Any], *, patience: float, sleep: Callable[[float], None] = time.sleep) -> Any:
    """The answer, however often one is asked to wait, until the patience is used up.

    Raises:
        ApiRefused: the last answer, when it is another refusal or the patience is used up.
    """
    left = patience
    while True:
        try:
            return ask()
        except ApiRefused as refused:
            pause = min(max(refused.retry_after, 1.0), LONGEST_PAUSE)
            if refused.status not in WAITED_FOR or left < pause:
                raise
            chat(f"{refused.sentence} Waiting {pause:.0f} s.")
            sleep(pause)
            left -= pause
