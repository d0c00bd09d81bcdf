"""Commands that carry boards out and in: `publish`, `import`. Both work on the data folder; the system may run.

Whatever knows a database is imported when one of them runs: loading it costs more than all other commands together.
"""

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.program import program
from orchestrator.settings import HubSettings, read_settings
from orchestrator.suites import load_suites
from submissions import words
from submissions.cli.output import answer, answer_json, chat
from submissions.cli.paths import folder

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from orchestrator.rows import Progress

commands = typer.Typer()

Data = Annotated[
    Path | None, typer.Option(metavar="DIR", parser=folder, help="Folder for database, artifacts and logs.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]
SHOWN_ROWS = 20
TELL_SECONDS = 2.0


@commands.command()
def publish(
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="A folder, or hf://datasets/org/name on the Hugging Face Hub.")
    ],
    data: Data = None,
    suite: Annotated[str | None, typer.Option(help="This suite alone; all of them by default.")] = None,
    include_team: Annotated[
        list[str] | None, typer.Option(metavar="TEAM", help="Publish what this team may see, too; may be repeated.")
    ] = None,
    imported: Annotated[bool, typer.Option("--imported", help="Also rows that were imported, marked as such.")] = False,
    samples: Annotated[
        bool, typer.Option("--samples", help="Also every document's prompt and answer; never confidential ones.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, where it has to be made.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be written and deleted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the boards that everybody may see to a folder or to the Hub: data of the Open LLM Leaderboard, and pages.

    Run again it writes only what has changed, and deletes what is no longer public. Stopped, it goes on. Only what
    everybody may see is published; people's names and those of hosts never are. For the Hub, give a token that may
    write in EVALYARD_PUBLISH_TOKEN.

    \b
    evalyard publish /srv/www/board
    evalyard publish hf://datasets/acme/leaderboard --suite open-llm-v2
    evalyard publish /srv/www/board --dry-run
    """
    from submissions.publishing.board import Choices, publish_boards

    settings, engine = _opened(data, what="to publish")
    teams = frozenset(team.strip().lower() for team in include_team or ())
    done = publish_boards(
        settings,
        engine,
        load_suites(settings.suites),
        destination,
        choices=Choices(suite=suite, teams=teams, imported=imported, samples=samples, private=private),
        check=dry_run,
        progress=_progress(),
    )
    report: dict[str, Any] = {
        "destination": done.published.address,
        "revision": done.revision or None,
        "dry_run": dry_run,
        "rows": done.boards.rows,
        "suites": {one.suite.name: one.suite.version for one in done.boards.listed},
        "written": done.published.written,
        "deleted": done.published.deleted,
        "unchanged": done.published.unchanged,
        "left_alone": done.published.left,
        "left_out": done.boards.left_out,
    }
    if as_json:
        answer_json(report)
        return
    for model in done.boards.left_out:
        chat(f"Left out, as its name or revision cannot stand in a published file: {words.shown(model)}")
    for path in done.published.left:
        chat(f"{path} there is somebody's own and was left as it is.")
    rows = words.count(done.boards.rows, "row")
    if not done.published.changed:
        answer(f"Nothing has changed: {done.published.address} has {rows}.")
        return
    verb = ("would be written", "would be deleted") if dry_run else ("written", "deleted")
    told = f"{words.count(len(done.published.written), 'file')} {verb[0]}, {len(done.published.deleted)} {verb[1]}"
    answer(f"{done.published.address}: {rows}; {told}, {done.published.unchanged} unchanged.")
    if dry_run:
        for sign, paths in (("+", done.published.written), ("-", done.published.deleted)):
            for path in paths[:SHOWN_ROWS]:
                answer(f"  {sign} {path}")
            if len(paths) > SHOWN_ROWS:
                answer(f"  {sign} and {len(paths) - SHOWN_ROWS} more")
    else:
        chat(f"Read it back elsewhere: {program()} import {done.published.address}")


@commands.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder or file, or hf://datasets/org/name on the Hub.")
    ],
    data: Data = None,
    suite: Annotated[str | None, typer.Option(help="The suite that the rows are of, or the only one to take.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be taken and what refused.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a published board's rows on the board here, marked as imported, with their ranks and provenance.

    Reads what `evalyard publish` wrote, exactly, and contents and results files of the Open LLM Leaderboard. Run again
    it takes what has changed there and takes back what is gone. Nothing imported is evaluated here unless somebody
    submits it. Exit code 1 when rows were refused; the others are taken all the same.

    \b
    evalyard import hf://datasets/acme/leaderboard
    evalyard import contents.parquet --suite open-llm-v1 --dry-run
    """
    from orchestrator.exchange.importer import import_board

    settings, engine = _opened(data, what="to import into")
    token = settings.hub_token or settings.publish_token
    done = import_board(
        engine,
        load_suites(settings.suites),
        source,
        scratch=settings.data / "cache",
        token=token.get_secret_value() if token else None,
        suite=suite,
        dry_run=dry_run,
        progress=_progress(),
    )
    counts = {name: done.counts[name] for name in ("added", "changed", "unchanged")}
    own = done.counts["own"]
    if as_json:
        answer_json(
            {
                "source": done.address,
                "layout": done.layout,
                "read_as": done.read_as,
                "revision": done.revision or None,
                "dry_run": dry_run,
                "suites": done.suites,
                **counts,
                "own": own,
                "withdrawn": done.withdrawn,
                "refused": [{"what": one.what, "reason": one.reason} for one in done.refused],
                "note": done.withholds or None,
            }
        )
        raise typer.Exit(1 if done.refused else 0)
    chat(f"Read as {done.read_as}.")
    if own:
        chat(
            f"{words.count(own, 'row')} of it are evaluated here and on the board already; nothing was done with them."
        )
    for one in done.refused if dry_run else done.refused[:SHOWN_ROWS]:
        chat(f"Refused: {_plain(one.what)}: {_plain(one.reason)}")
    if len(done.refused) > SHOWN_ROWS and not dry_run:
        chat(f"and {len(done.refused) - SHOWN_ROWS} more; --json or --dry-run lists them all.")
    for model in done.withdrawn[:SHOWN_ROWS]:
        chat(f"No longer there: {_plain(model)}")
    if done.withholds:
        chat(done.withholds)
    verb = "would be " if dry_run else ""
    told = ", ".join(f"{number} {verb if name != 'unchanged' else ''}{name}" for name, number in counts.items())
    more = f", {len(done.withdrawn)} {verb}taken off the board" if done.withdrawn else ""
    answer(f"{done.address}: {told}{more}, {len(done.refused)} refused.")
    if not dry_run and done.suites:
        chat(f"See them: {program()} board --suite {done.suites[0].split()[0]}")
    raise typer.Exit(1 if done.refused else 0)


def _opened(data: Path | None, *, what: str) -> "tuple[HubSettings, Engine]":
    """Settings and database of a system that is there: a new one has nothing, and nobody would find its board.

    Raises:
        Refused: there is none, and so nothing `what`.
    """
    from orchestrator import db
    from orchestrator.admin import present_database

    settings = read_settings(data=data)
    engine = present_database(settings, what=what)
    db.migrate(engine)
    return settings, engine


def _progress() -> "Progress":
    """Says how far it is, now and then, on a line of standard error."""
    told = [time.monotonic()]

    def tell(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - told[0] < TELL_SECONDS:
            return
        told[0] = now
        of = f" of {total:,}" if total > done else ""
        sys.stderr.write(f"{done:,}{of} {what}\n")
        sys.stderr.flush()

    return tell


def _plain(text: str) -> str:
    return words.shown(re.sub(r"\s+", " ", text), most=300)
