"""What the commands without a server take alike: their arguments and options, with the words of their help."""

from typing import Annotated

import typer

from orchestrator.wire import EngineFamily
from submissions.cli.numbers import documents, examples, tokens
from submissions.cli.submit import BASE_MODEL_HELP, PRECISIONS, WEIGHT_TYPE_HELP, WEIGHT_TYPES, one_of

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A Hub id (org/name) or a local folder.")]
SuiteOption = Annotated[str | None, typer.Option("--suite", "-s", help="A suite: see `evalyard suites`.")]
TasksOption = Annotated[
    str | None, typer.Option("--tasks", "-t", help="lm-eval tasks or groups, separated by commas.", metavar="T[,T…]")
]
ShotsOption = Annotated[
    int | None,
    typer.Option("--num-fewshot", metavar="N", parser=examples, help="Examples in each prompt; for --tasks only."),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit", metavar="N", parser=documents, help="Documents for each lm-eval task: a trial, not to be compared."
    ),
]
RevisionOption = Annotated[str | None, typer.Option(help="Branch, tag or commit.")]
EngineOption = Annotated[EngineFamily | None, typer.Option("--engine", help="What computes; vllm by default.")]
PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="|".join(PRECISIONS),
        help="What to load the weights as; auto takes what they were saved in.",
        callback=one_of(PRECISIONS),
    ),
]
WeightTypeOption = Annotated[
    str, typer.Option(metavar="|".join(WEIGHT_TYPES), help=WEIGHT_TYPE_HELP, callback=one_of(WEIGHT_TYPES))
]
BaseModelOption = Annotated[str | None, typer.Option(help=BASE_MODEL_HELP)]
TemplateOption = Annotated[
    bool | None,
    typer.Option("--chat-template/--no-chat-template", help="Apply the model's chat template; the suite's default."),
]
ContextOption = Annotated[
    int | None, typer.Option(metavar="N", parser=tokens, help="Tokens; the model's own limit by default.")
]
SettingsOption = Annotated[
    str, typer.Option("--engine-settings", metavar="JSON", help="Engine settings, e.g. '{\"max_num_seqs\": 32}'.")
]
HarnessOption = Annotated[
    str | None,
    typer.Option("--harness", metavar="X.Y.Z", help="Version of lm-eval (`evalyard harness list`); the suite's own."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable, on standard output.")]
