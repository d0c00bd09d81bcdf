"""The commands `harness list|add|remove|check`: which versions of lm-eval this machine has an environment of.

They look at this machine alone: a worker on another host tells the hub what it has, and `evalyard queue` shows it.
"""

from typing import Annotated, Any

import typer

from orchestrator.errors import Refused
from orchestrator.narrator import telling
from orchestrator.program import program
from orchestrator.settings import HubSettings, read_settings
from orchestrator.suites import load_suites
from submissions.cli.listing import Listing
from submissions.cli.output import answer, answer_json, answer_table, chat
from submissions.local.plan import harness_folder
from workers.harnesses import environments, making
from workers.harnesses.environments import Environment

group = typer.Typer(
    help="Versions of lm-eval on this machine, each in an environment of its own.",
    cls=Listing,
    no_args_is_help=True,
    rich_markup_mode=None,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable, on standard output.")]
VersionArgument = Annotated[str, typer.Argument(metavar="lm-eval==X.Y.Z", help="The version; X.Y.Z alone will do.")]


@group.command("list")
def list_(as_json: JsonOption = False) -> None:
    """The harness environments of this machine, and which suites use which.

    \b
    evalyard harness list
    """
    settings = read_settings()
    used = _suites_by_harness(settings)
    found = environments.found(harness_folder(settings))
    if as_json:
        answer_json([_record(one, used) for one in found])
        return
    rows = [
        (
            one.harness,
            ", ".join(used.get(one.harness, ())) or "none",
            "Evalyard's own environment" if one.is_own else str(one.folder),
            ", ".join(f"{name} {version}" for name, version in one.packages.items()),
        )
        for one in found
    ]
    answer_table([("harness", "left"), ("suites", "left"), ("where", "left"), ("with", "left")], rows)
    for harness in sorted(used.keys() - {one.harness for one in found}):
        wanted = harness.replace("lm_eval ", "lm-eval==")
        chat(f"{', '.join(used[harness])} needs {harness}. Add it: {program()} harness add {wanted}")


@group.command()
def add(version: VersionArgument, as_json: JsonOption = False) -> None:
    """Make an environment for a version of lm-eval beside those that are there. Workers here find it by themselves.

    Stopped with Ctrl-C, it leaves nothing behind.

    \b
    evalyard harness add lm-eval==0.4.14
    """
    settings = read_settings()
    folder = harness_folder(settings)
    wanted = _wanted(version)
    if (there := environments.find(folder, f"lm_eval {wanted}")) is not None:
        if as_json:
            answer_json(_record(there, _suites_by_harness(settings)))
            return
        answer(f"{there.harness} is there already ({there.folder or 'the environment that Evalyard runs in'}).")
        return
    with telling(f"lm-eval {wanted}: an environment in {folder}", chat) as tell:
        try:
            made = making.add(folder, wanted, say=lambda line: tell(f"  {line}"))
        except making.CannotMake as error:
            raise Refused(str(error)) from error
    if as_json:
        answer_json(_record(made, _suites_by_harness(settings)))
        return
    answer(f"{made.harness} is ready: {made.folder}")
    chat(f"What it would change of a suite: {program()} rerun plan --suite NAME --harness {wanted}")


@group.command()
def remove(version: VersionArgument) -> None:
    """Remove an environment that was added. Pause this host's worker before: what runs in it would fail.

    \b
    evalyard harness remove lm-eval==0.4.10
    """
    settings = read_settings()
    wanted = _wanted(version)
    try:
        making.remove(harness_folder(settings), wanted)
    except making.CannotMake as error:
        raise Refused(str(error)) from error
    answer(f"lm_eval {wanted} is removed.")
    if users := _suites_by_harness(settings).get(f"lm_eval {wanted}"):
        chat(f"{', '.join(users)} still needs it: evaluations of it wait for a worker that has it.")


@group.command()
def check(
    version: Annotated[str | None, typer.Argument(metavar="[X.Y.Z]", help="One version; all by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """See whether environments work: import lm-eval in each and list its tasks.

    \b
    evalyard harness check
    """
    folder = harness_folder(read_settings())
    found = environments.found(folder)
    if version is not None:
        wanted = _wanted(version)
        found = [one for one in found if one.version == wanted]
        if not found:
            raise Refused(f"There is no environment of lm-eval {wanted} here. Add it: {program()} harness add {wanted}")
    records = []
    for one in found:
        with telling(f"Looking at {one.harness}", chat, quiet_start=True):
            try:
                records.append({"harness": one.harness, "works": True, **making.check(one)})
            except making.CannotMake as error:
                records.append({"harness": one.harness, "works": False, "sentence": str(error)})
    if as_json:
        answer_json(records)
    for record in () if as_json else records:
        works = f"works, {record['tasks']:,} tasks and groups" if record["works"] else record["sentence"]
        answer(f"{record['harness']}: {works}")
        if record.get("sandbox"):
            chat(f"  Benchmarks that run generated code are refused here. {record['sandbox']}")
    if not all(record["works"] for record in records):
        raise typer.Exit(1)


def _wanted(version: str) -> str:
    try:
        return making.wanted_version(version)
    except making.CannotMake as error:
        raise Refused(str(error)) from error


def _suites_by_harness(settings: HubSettings) -> dict[str, list[str]]:
    used: dict[str, list[str]] = {}
    for suite in load_suites(settings.suites).values():
        used.setdefault(suite.harness, []).append(suite.name)
    return used


def _record(one: Environment, used: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "harness": one.harness,
        "folder": str(one.folder) if one.folder else None,
        "python": str(one.python),
        "packages": one.packages,
        "suites": used.get(one.harness, []),
    }
