"""Commands for training runs: `series` shows one by step, `gate` tells whether a checkpoint is worse than another."""

from typing import Annotated, Any

import typer

from submissions import words
from submissions.cli.actions import AsJson
from submissions.cli.client import Client, segment
from submissions.cli.follow import FINAL, follow
from submissions.cli.numbers import evaluation_number
from submissions.cli.output import answer, answer_json, answer_table, chat, complain

commands = typer.Typer()
GATE_SECONDS = 900.0
"""All samples of both are read before the answer comes."""


@commands.command()
def series(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `evalyard submit --series NAME` was given.")],
    as_json: AsJson = False,
) -> None:
    """Show the checkpoints of a training run with their scores, by step.

    \b
    evalyard submit org/run-7 --revision step-2000 --series run-7 --step 2000
    evalyard series run-7
    """
    client = Client()
    found = client.get(f"/series/{segment(name)}")
    if as_json:
        answer_json(found)
        return
    for run in found["runs"]:
        names = list(dict.fromkeys(one for point in run["points"] for one in point["benchmarks"]))
        columns = [("Step", "right"), ("Evaluation", "right"), ("State", "left"), ("Average", "right")]
        columns += [(one, "right") for one in names]
        rows = [
            [str(point["step"]), str(point["evaluation"]), point["state"], words.score(point["average"])]
            + [words.score(point["benchmarks"].get(one, [None])[0]) for one in names]
            for point in run["points"]
        ]
        apart = [f"{run['suite']} {run['suite_version']}", run["precision"]]
        apart += ["chat template"] if run["chat_template"] else []
        apart += [f"trial of {run['limit']}"] if run["limit"] else []
        apart += [f"{run['submitter']}'s"] if run["owner"] else []
        answer_table(columns, rows, title=", ".join(apart))
    chat(client.page(f"/series/{segment(name)}"))


@commands.command()
def gate(
    evaluation: Annotated[int, typer.Argument(metavar="ID", help="The evaluation to judge.", parser=evaluation_number)],
    baseline: Annotated[
        int, typer.Option(metavar="ID", help="The evaluation that it must not be worse than.", parser=evaluation_number)
    ],
    benchmark: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Compare this one alone; several times for several. All by default."),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="How often a gate may fail by chance where nothing is worse: above 0, below 0.5.")
    ] = 0.05,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until both have ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fail where an evaluation is significantly worse than a baseline: for CI.

    Both are compared document by document over stored samples, so that what both find hard cancels out. The test is
    one-sided and corrected for the number of benchmarks. Exit code 0: nowhere significantly worse; 1: worse
    somewhere, or a benchmark cannot be compared.

    \b
    evalyard gate 42 --baseline 41
    evalyard gate 42 --baseline 41 --benchmark ARC --benchmark MMLU --alpha 0.01 --wait --json
    """
    if not 0 < alpha < 0.5:
        raise typer.BadParameter("It lies between 0 and 0.5, such as 0.05.", param_hint="--alpha")
    client = Client()
    for number in (evaluation, baseline) if wait else ():
        if client.get(f"/evaluations/{number}")["state"] not in FINAL:
            follow(client, number)
    path = f"/evaluations/{evaluation}/gate"
    found = client.get(path, timeout=GATE_SECONDS, baseline=baseline, benchmark=benchmark or None, alpha=alpha)
    if as_json:
        answer_json(found)
    else:
        _answer_table(found)
        (answer if found["verdict"] == "passed" else complain)(found["sentence"])
    raise typer.Exit(0 if found["verdict"] == "passed" else 1)


def _answer_table(found: dict[str, Any]) -> None:
    columns = (
        ("Benchmark", "left"),
        (f"#{found['baseline']}", "right"),
        (f"#{found['evaluation']}", "right"),
        ("Difference", "right"),
        ("95 % interval", "left"),
        ("p", "right"),
        ("Documents", "right"),
        ("Verdict", "left"),
    )
    # The board shows normalised values beside which these would look wrong.
    title = "Raw scores in percent, before normalisation"
    answer_table(columns, [_row(one) for one in found["benchmarks"]], title=title)
    for one in found["benchmarks"]:
        if one["sentence"]:
            chat(f"{one['benchmark']}: {one['sentence']}")


def _row(one: dict[str, Any]) -> list[str]:
    if one["difference"] is None:
        return [one["benchmark"], *["–"] * 6, one["verdict"]]
    return [
        one["benchmark"],
        words.score(one["theirs"]),
        words.score(one["ours"]),
        f"{one['difference']:+.2f}",
        f"{one['low']:+.2f} to {one['high']:+.2f}",
        f"{one['corrected']:.3g}",
        str(one["documents"]),
        one["verdict"],
    ]
