"""What commands print: answers on standard output, chatter on standard error, JSON for scripts. Decides nothing."""

import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.program import program
from submissions import words

STYLES = {
    "finished": "green",
    "failed": "red",
    "cancelled": "dim",
    "queued": "dim",
    "planned": "dim",
    "waiting": "dim",
    "running": "yellow",
    "preparing": "yellow",
    "scoring": "yellow",
}


def answer_json(value: Any) -> None:
    """The answer for a script."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def answer(text: str) -> None:
    """The answer for a person."""
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


def chat(text: str) -> None:
    """Anything that is not the answer."""
    sys.stderr.write(text.rstrip("\n") + "\n")
    sys.stderr.flush()


def complain(sentence: str) -> None:
    """An error: what is wrong and what to do next."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(sentence, style="red"))


@contextmanager
def on_interrupt(sentence: str) -> Iterator[None]:
    """Ctrl-C ends with what goes on and how to come back, never without a word."""
    try:
        yield
    except KeyboardInterrupt:
        chat(f"\nStopped. {sentence}")
        raise typer.Exit(130) from None


def answer_table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """A table; each column is its title and `left` or `right`. Not cut to a width when the output is a file."""
    table = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2)
    )
    for name, side in columns:
        table.add_column(name, justify="right" if side == "right" else "left", overflow="fold", header_style="dim")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(table)
        return
    plain = Console(highlight=False, width=1000, no_color=True, file=io.StringIO())
    plain.print(table)
    assert isinstance(plain.file, io.StringIO)
    answer("\n".join(line.rstrip() for line in plain.file.getvalue().splitlines()))


def paused_line(command: str, *, by: str | None, since: str | None) -> str:
    """Who paused something, since when, and the command that resumes it: `By ada since 2026-03-04 05:06 UTC. …`."""
    when = f"since {words.moment(datetime.fromisoformat(since))}. " if since else ""
    who = f"By {by} {when}" if by and when else when[:1].upper() + when[1:]
    return f"{who}Resume: {program()} {command}"


def state_line(evaluation: dict[str, Any]) -> str:
    """`41 acme/model: running, 120 of 300 requests answered (40 %)`."""
    progress = evaluation["progress"]
    line = f"{evaluation['id']} {evaluation['model']}: {words.state(evaluation['state'], evaluation['is_waiting'])}"
    if progress["text"]:
        line += f", {progress['text']}"
    if progress["total"] and evaluation["state"] not in ("finished", "failed", "cancelled"):
        line += f" ({words.percent(min(1.0, progress['done'] / progress['total']))})"
    return line
