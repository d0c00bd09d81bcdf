"""The `evalyard` command: where its groups of commands come together, and where every error becomes a sentence.

Commands that run stages here (`submissions.local`) are added only when the word given is none of the others: they
load the workers' packages, and `evalyard status` must not wait for those.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import typer

from orchestrator.errors import EvalyardError
from submissions.cli import (
    actions,
    batch,
    canary,
    check,
    checkpoints,
    clusters,
    exchange,
    flags,
    hub_token,
    look,
    people,
    reruns,
    submit,
    system,
    workers,
)
from submissions.cli.listing import Listing
from submissions.cli.output import complain

HELP = """Host your own Open LLM Leaderboard on GPUs that are otherwise idle.

\b
Start a system on this machine     evalyard up
Submit a model and watch it        evalyard submit org/name --suite open-llm-v1 --limit 20 --wait
See who leads                      evalyard board
Evaluate without a server          evalyard evaluate org/name --suite demo

Answers go to standard output, everything else to standard error. Exit code 0: done; 1: refused or failed; 2: misused.
The server is found by EVALYARD_URL, or where `evalyard up` says it is.
"""

GROUPS = (
    system.commands,
    submit.commands,
    check.commands,
    batch.commands,
    look.commands,
    actions.commands,
    checkpoints.commands,
    flags.commands,
    workers.commands,
    people.commands,
    hub_token.commands,
    clusters.commands,
    exchange.commands,
)
SUBGROUPS = (
    reruns.commands,
    canary.commands,
)
"""Commands of two words, e.g. `evalyard rerun plan`."""


class Program(Listing):
    """All commands; what typer says of a wrong word it says without the name that pydantic gives to errors."""

    titles: ClassVar[Mapping[str, Sequence[str]]] = {
        "Submit and follow": (
            "submit", "check", "batch", "status", "queue", "cancel", "retry", "vote", "notify", "series", "gate",
        ),
        "Read": ("board", "suites", "reproduce"),
        "Run a hub": ("up", "backup", "restore", "worker", "cluster", "boost", "flag", "unflag", "publish", "import"),
        "Upgrade it": ("rerun", "harness", "canary"),
        "Accounts": ("login", "logout", "whoami", "token", "hub-token", "people", "person"),
        "Evaluate here, without a hub": ("evaluate", "prepare", "infer", "score", "parity"),
    }  # fmt: skip

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


def make_app(*, everything: bool = True) -> typer.Typer:
    """The whole command; `everything` adds the commands that work without a server and need the workers' packages."""
    app = typer.Typer(
        name="evalyard",
        cls=Program,
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_take_options)
    for group in GROUPS:
        app.registered_commands += group.registered_commands
    for group in SUBGROUPS:
        app.add_typer(group)
    if everything:
        local = _local_commands()
        app.registered_commands += local.registered_commands
        app.registered_groups += local.registered_groups
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a person's mistake ends in a sentence and an exit code, never in a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own = {name for group in GROUPS for name in _names(group)} | {group.info.name for group in SUBGROUPS}
    first = next((word for word in given if not word.startswith("-")), "")
    try:
        make_app(everything=first not in own)(args=given, prog_name="evalyard")
    except EvalyardError as error:
        complain(error.sentence)
        sys.exit(1)
    except KeyboardInterrupt:
        complain("Stopped.")
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the answer has seen enough of it.
        sys.stderr.close()
        sys.exit(0)
    except _artifact_errors() as error:
        complain(str(error))
        sys.exit(1)
    except OSError as error:
        what = error.filename or "A file or connection"
        complain(f"{what} cannot be used ({error.strerror or error}). Check its path, its permissions and the disk.")
        sys.exit(1)


def _artifact_errors() -> tuple[type[Exception], ...]:
    """What the artifact store raises; nothing while no command has loaded it, as most have no use for it."""
    loaded = sys.modules.get("orchestrator.artifacts")
    return (loaded.ArtifactError,) if loaded is not None else ()


def _say_version(asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(f"evalyard {version('evalyard')}")
    except PackageNotFoundError:
        typer.echo("evalyard (from a checkout)")
    raise typer.Exit


def _take_options(
    version: bool = typer.Option(
        False, "--version", help="Show the version and exit.", is_eager=True, callback=_say_version
    ),
) -> None:
    """Options of the command itself; each acts in its own callback, before a command is asked for."""


def _local_commands() -> typer.Typer:
    """Commands that run the stages here; absent where the workers' packages are not installed."""
    try:
        from submissions.local.commands import commands
    except ImportError:
        return typer.Typer()
    return commands


def _names(group: typer.Typer) -> list[str]:
    commands = group.registered_commands
    return [command.name or command.callback.__name__ for command in commands if command.callback is not None]
