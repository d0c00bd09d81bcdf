"""`evalyard batch`: many models from a file, or request files of the Open LLM Leaderboard; it waits where it must."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from submissions.batches import Line, read_batch
from submissions.cli.client import ApiRefused, Client, ServerAway
from submissions.cli.numbers import documents
from submissions.cli.output import answer, answer_json, chat, on_interrupt
from submissions.cli.paths import present
from submissions.cli.submit import model_address
from submissions.request import DEFAULT_SUITE

commands = typer.Typer()

WAITED_FOR = (429, 503)
"""Too many in too short a time, or the Hub is away: neither is the model's fault."""
AWAY_SECONDS = 10.0
"""After which a server that answered before, and does not now, is asked again: it may be restarted."""
LONGEST_PAUSE = 300.0
MOST_IN_A_ROW = 5
"""Lines that have to wait, one after the other: then the rest would have to, too, and is not asked in this round."""

Answer = dict[str, Any]
"""What became of a line: where it stands, whether it was accepted, and what was said."""


@commands.command()
def batch(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", parser=present, help="Models: .txt, .csv, .jsonl; or a folder.")
    ],
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
    requests (.jsonl); or is a folder with request files of the Open LLM Leaderboard. A line that has to wait, as the
    Hub is away or a limit is reached, is come back to after the others; with --check-only nothing is waited for.
    Running it again submits nothing twice. Exit code 1 when any was refused.

    \b
    evalyard batch models.txt --suite open-llm-v1
    evalyard batch models.csv --check-only
    evalyard batch requests/acme --suite open-llm-v2
    """
    lines, client = read_batch(path), Client()
    client.get("/health")  # where no server is, there is nothing to wait for
    with on_interrupt("What was submitted stays, and the same command goes on: it submits nothing twice."):
        done = submit_all(
            lines,
            lambda line: _submit(client, line, defaults={"suite": suite, "limit": limit}, check_only=check_only),
            patience=0 if check_only else patience * 60,
            say=lambda one: None if as_json else answer(f"{one['where']}: {one['message']}"),
        )
    waited = sum("waited" in one for one in done)
    refused = sum(not one["accepted"] for one in done)
    if as_json:
        answer_json(done)
    else:
        verb = "would be accepted" if check_only else "accepted"
        asked_again = f", {waited} to be asked for again later" if waited else ""
        chat(f"{len(done) - refused} of {len(done)} {verb}, {refused - waited} refused{asked_again}.")
    raise typer.Exit(1 if refused else 0)


def submit_all(
    lines: Sequence[Line],
    submit: Callable[[Line], Answer],
    *,
    patience: float,
    say: Callable[[Answer], None],
    sleep: Callable[[float], None] = time.sleep,
) -> list[Answer]:
    """What became of each line, in their order. A line that has to wait is come back to after the others.

    `submit` raises ApiRefused for one that has to; `patience`: seconds that are slept in all.
    """
    done: dict[int, Answer] = {}
    waiting, left = list(enumerate(lines)), patience
    while waiting:
        later: list[tuple[int, Line]] = []
        asked, in_a_row = [], 0
        for place, (number, line) in enumerate(waiting):
            try:
                done[number] = submit(line)
            except ApiRefused as refused:
                later.append((number, line))
                asked.append(refused)
                in_a_row += 1
                if in_a_row == MOST_IN_A_ROW:
                    later += waiting[place + 1 :]
                    break
                continue
            in_a_row = 0
            say(done[number])
        pause = min((min(max(one.retry_after, 1.0), LONGEST_PAUSE) for one in asked), default=0.0)
        if asked and left < pause:
            for number, line in later:
                sentence = f"It could not be asked for in time: {asked[-1].sentence}"
                done[number] = {"where": line.where, "accepted": False, "message": sentence, "waited": True}
                say(done[number])
            break
        if asked:
            chat(
                f"{len(later)} of {len(lines)} lines have to wait: {asked[-1].sentence} They are tried again in "
                f"{pause:.0f} s; given up after {left / 60:.0f} min of waiting."
            )
            sleep(pause)
            left -= pause
        waiting = later
    return [done[number] for number in sorted(done)]


def _submit(client: Client, line: Line, *, defaults: dict[str, Any], check_only: bool) -> Answer:
    """What became of one line.

    Raises:
        ApiRefused: it has to wait, which is not the model's fault.
    """
    if line.fault:
        return {"where": line.where, "accepted": False, "message": line.fault}
    asked = {name: value for name, value in defaults.items() if value is not None} | line.asked
    asked["model"] = model_address(str(asked["model"]))
    try:
        found = client.post("/checks" if check_only else "/evaluations", asked)
    except ApiRefused as refused:
        if refused.status in WAITED_FOR:
            raise
        return {"where": line.where, "accepted": False, "message": refused.sentence, "problem": refused.problem}
    except ServerAway as away:
        raise ApiRefused(away.sentence, problem={}, status=503, retry_after=AWAY_SECONDS) from away
    if check_only:
        faults = [one["sentence"] for one in found["findings"] if one["outcome"] == "fault"]
        message = " ".join([found["message"], *faults])
        return {"where": line.where, "accepted": found["accepted"], "message": message, "check": found}
    return {"where": line.where, "accepted": True, "message": found["message"], "evaluation": found["evaluation"]["id"]}
