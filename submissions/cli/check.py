"""`evalyard check`: would this model be accepted? Every check with what came of it; nothing is queued."""

from typing import Annotated, Any

import typer

from submissions.cli.client import Client
from submissions.cli.output import answer, answer_json
from submissions.cli.submit import (
    BASE_MODEL_HELP,
    PRECISIONS,
    WEIGHT_TYPE_HELP,
    WEIGHT_TYPES,
    model_address,
    one_of,
)
from submissions.request import DEFAULT_SUITE

commands = typer.Typer()

MARKS = {"passed": "ok  ", "fault": "FAIL", "note": "note"}


@commands.command()
def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A Hub id (org/name) or a local folder.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="|".join(PRECISIONS), help="What the weights would be loaded as.", callback=one_of(PRECISIONS)
        ),
    ] = "auto",
    weight_type: Annotated[
        str, typer.Option(metavar="|".join(WEIGHT_TYPES), help=WEIGHT_TYPE_HELP, callback=one_of(WEIGHT_TYPES))
    ] = "original",
    base_model: Annotated[str | None, typer.Option(help=BASE_MODEL_HELP)] = None,
    chat_template: Annotated[
        bool | None,
        typer.Option("--chat-template/--no-chat-template", help="Apply the model's chat template; else as the suite."),
    ] = None,
    suite: Annotated[str, typer.Option(help="What would be evaluated: see `evalyard suites`.")] = DEFAULT_SUITE,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")] = False,
) -> None:
    """Check a model without submitting it: every check, with what passed, too.

    Exit code 1 when it would be refused.

    \b
    evalyard check org/name --suite open-llm-v1
    evalyard check ./my-model --suite demo --chat-template
    """
    request = {
        "model": model_address(model),
        "revision": revision,
        "precision": precision,
        "weight_type": weight_type,
        "base_model": model_address(base_model) if base_model else None,
        "chat_template": chat_template,
        "suite": suite,
    }
    found = Client().post("/checks", {name: value for name, value in request.items() if value is not None})
    if as_json:
        answer_json(found)
    else:
        answer("\n".join([found["message"], *map(_line, found["findings"])]))
    raise typer.Exit(0 if found["accepted"] else 1)


def _line(finding: dict[str, Any]) -> str:
    kind = f" [{finding['kind'].replace('_', ' ')}]" if finding["kind"] else ""
    said = f": {finding['sentence']}" if finding["sentence"] else ""
    return f"  {MARKS[finding['outcome']]}  {finding['title']}{kind}{said}"
