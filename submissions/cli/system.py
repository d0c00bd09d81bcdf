"""Commands that run and keep a system on this machine: `up`, `backup`, `restore`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.errors import Refused
from orchestrator.settings import HubSettings, read_settings
from orchestrator.wire import EngineFamily
from submissions.cli import numbers
from submissions.cli.client import Client, ServerAway, hub_url
from submissions.cli.output import answer, chat
from submissions.cli.paths import folder as data_folder

commands = typer.Typer()

LEFT_OUT = ("secret-key", "notifications.toml", "clusters.toml")
"""Of a data folder, no part of a backup."""

Data = Annotated[
    Path | None, typer.Option(metavar="DIR", parser=data_folder, help="Folder for database, artifacts and logs.")
]


@commands.command()
def up(
    data: Data = None,
    port: Annotated[
        int | None, typer.Option(metavar="N", parser=numbers.port, help="Of the web page; 0 takes a free one.")
    ] = None,
    engine: Annotated[EngineFamily | None, typer.Option(help="What computes the responses; vllm by default.")] = None,
    engine_worker: Annotated[
        bool,
        typer.Option("--engine-worker/--no-engine-worker", help="Whether this machine answers requests itself, too."),
    ] = True,
) -> None:
    """Run the whole system on this machine until Ctrl-C: broker, web page, control, and a worker of each kind.

    \b
    evalyard up
    evalyard up --data /srv/evalyard --port 9000
    evalyard up --no-engine-worker            a hub without a GPU: other machines, or a cluster, answer
    """
    from orchestrator import system

    kinds = ("harness", "engine") if engine_worker else ("harness",)
    raise typer.Exit(system.up(read_settings(data=data, port=port, engine=engine), kinds=kinds, say=chat))


@commands.command()
def backup(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the copy.")], data: Data = None
) -> None:
    """Copy the database and the artifacts to a folder, consistent with each other, while the system may run.

    \b
    evalyard backup /srv/backups/monday
    evalyard backup /srv/backups/monday --data .evalyard        where `make up` and `make demo` keep theirs
    """
    from orchestrator import admin

    settings = read_settings(data=data)
    if data is None:
        _refuse_another_system(settings)
    answer(admin.backup(settings, folder.resolve()))
    if left := [name for name in LEFT_OUT if (settings.data / name).is_file()]:
        chat(f"Not in it, as they hold secrets: {', '.join(left)}. Keep copies of them elsewhere.")


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

    answer(admin.restore(read_settings(data=data), folder.resolve()))


def _refuse_another_system(settings: HubSettings) -> None:
    """Without --data, the system that answers here must be that of the data folder: any other would be left out.

    Raises:
        Refused: a system answers and it is not this data folder's.
    """
    if "EVALYARD_DATA" in os.environ or "EVALYARD_DATABASE_URL" in os.environ or (settings.data / "url").is_file():
        return
    try:
        Client().get("/health")
    except ServerAway:
        return
    raise Refused(
        f"The Evalyard at {hub_url()} does not run on {settings.data}, which would be backed up. "
        "Give its data folder with --data; it names that folder when it starts."
    )
