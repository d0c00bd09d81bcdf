"""Watching an evaluation until it ends, on standard error. Asks the API; decides nothing but the exit code."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from orchestrator.narrator import Narrator
from orchestrator.program import program
from orchestrator.wire import EngineFamily
from submissions import words
from submissions.cli.client import Client, ServerAway
from submissions.cli.output import chat, on_interrupt, state_line

FINAL = ("finished", "failed", "cancelled")
PAUSE_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
"""How long the hub may be away, e.g. while it is restarted, before following gives up."""


def follow(client: Client, evaluation: int, *, pause_seconds: float = PAUSE_SECONDS) -> dict[str, Any]:
    """The evaluation as it ended; says what happens until then, and on Ctrl-C how to come back."""
    again = f"{program()} status {evaluation} --follow"
    with on_interrupt(f"Evaluation {evaluation} goes on where it is computed: {again}"):
        if sys.stderr.isatty():
            return _follow_with_bar(client, evaluation, pause_seconds=pause_seconds)
        return _follow_in_lines(client, evaluation, pause_seconds=pause_seconds)


def _follow_in_lines(client: Client, evaluation: int, *, pause_seconds: float) -> dict[str, Any]:
    narrator = Narrator(chat)
    while True:
        record = _ask(client, evaluation)
        why = f". {record['waiting_because']}" if record["waiting_because"] else ""
        is_over = record["state"] in FINAL
        narrator.tell(
            {evaluation: state_line(record)}, at_work=None if is_over else evaluation, details={evaluation: why}
        )
        if is_over:
            return record
        time.sleep(pause_seconds)


def _follow_with_bar(client: Client, evaluation: int, *, pause_seconds: float) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("queued", total=None, text="")
        while True:
            record = _ask(client, evaluation)
            progress = record["progress"]
            text = progress["text"] or record["waiting_because"]
            bar.update(
                task,
                description=words.state(record["state"], record["is_waiting"]),
                completed=progress["done"],
                text=text,
            )
            bar.update(task, total=progress["total"] or None)
            if record["state"] in FINAL:
                return record
            time.sleep(pause_seconds)


def _ask(client: Client, evaluation: int) -> dict[str, Any]:
    """The evaluation now; a hub that is away for a moment is waited for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            record: dict[str, Any] = client.get(f"/evaluations/{evaluation}")
            return record
        except ServerAway:
            if time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)


def outcome_sentence(record: dict[str, Any]) -> str:
    """What became of an ended evaluation and what to do next."""
    number = record["id"]
    if record["state"] == "finished" and record["average"] is not None:
        apart = " It has a limit, so it is not ranked." if record["limit"] else ""
        if record["engine"] == EngineFamily.SCRIPTED:
            apart = " The scripted engine made its answers up: it is never ranked."
        return f"Finished evaluation {number}: average {words.score(record['average'])}.{apart}"
    if record["state"] == "finished":
        return f"Finished evaluation {number} without an average. {record['sentence']}".strip()
    if record["state"] == "failed":
        return f"Evaluation {number} failed: {record['sentence']} {record['next_step']}".strip()
    return f"Evaluation {number} was cancelled."


def exit_code(record: dict[str, Any]) -> int:
    """0 when every benchmark has its score."""
    return 0 if record["state"] == "finished" and record["average"] is not None else 1
