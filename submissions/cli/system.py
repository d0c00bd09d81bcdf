"""Commands that run and keep a system on this machine: `up`, `backup`, `restore`."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.settings import read_settings
from orchestrator.wire import EngineFamily
from submissions.cli.output import answer, chat

commands = typer.Typer()

Data = Annotated[Path | None, typer.Option(help="Folder for database, artifacts and logs.", file_okay=False)]


@commands.command()
def up(
    data: Data = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Of the web page; 0 takes a free one.")] = None,
    engine: Annotated[EngineFamily | None, typer.Option(help="What computes the responses; vllm by default.")] = None,
) -> None:
    """Run the whole system on this machine until Ctrl-C: broker, web page, control, and a worker of each kind.

    \b
    evalyard up
    evalyard up --data /srv/evalyard --port 9000
    """
    from orchestrator import system

    raise typer.Exit(system.up(read_settings(data=data, port=port, engine=engine), say=chat))


@commands.command()
def backup(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the copy.")], data: Data = None
) -> None:
    """Copy the database and the artifacts to a folder, consistent with each other, while the system may run.

    \b
    evalyard backup /srv/backups/monday
    """
    from orchestrator import admin

    answer(admin.backup(read_settings(data=data), folder))


@commands.command()
def restore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `evalyard backup` made.")],
    data: Data = None,
) -> None:
    """Bring a backup back into an empty data folder, with the system stopped.

    \b
    evalyard restore /srv/backups/monday --data /srv/evalyard-again
    """
    from orchestrator import admin

    answer(admin.restore(read_settings(data=data), folder))
