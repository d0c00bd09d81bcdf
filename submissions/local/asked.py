"""What `evaluate`, `prepare` and `parity` ask alike: of which model, over what, computed how."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from submissions.local.options import (
    BaseModelOption,
    ContextOption,
    EngineOption,
    LimitOption,
    ModelArgument,
    PrecisionOption,
    RevisionOption,
    ShotsOption,
    SuiteOption,
    TasksOption,
    TemplateOption,
    WeightTypeOption,
)


@dataclass(frozen=True)
class Asked:
    """One record of the options that these commands share."""

    model: ModelArgument
    suite: SuiteOption = None
    tasks: TasksOption = None
    num_fewshot: ShotsOption = None
    limit: LimitOption = None
    engine: EngineOption = None
    precision: PrecisionOption = "auto"
    revision: RevisionOption = None
    chat_template: TemplateOption = None
    context_limit: ContextOption = None
    weight_type: WeightTypeOption = "original"
    base_model: BaseModelOption = None


def asking(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `Asked` spelled out beside its own: it takes them as one record, its first.

    Typer makes options of a function's parameters one by one and knows no records.
    """

    @functools.wraps(command)
    def spelled_out(**given: Any) -> None:
        asked = Asked(**{field.name: given.pop(field.name) for field in fields(Asked)})
        command(asked, **given)

    own = list(inspect.signature(command).parameters.values())[1:]
    every = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*inspect.signature(Asked).parameters.values(), *own)
    ]
    every.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    del spelled_out.__wrapped__  # or its parameters would be taken for ours
    spelled_out.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    spelled_out.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]  # what `inspect` looks at first
    return spelled_out
