"""Where the files of a published row lie, as in the Open LLM Leaderboard's data sets. Pure.

Names come from strangers: each part of a path is made of plain characters, and none leads out of its folder.
"""

from datetime import datetime

from orchestrator.artifacts import slug
from orchestrator.exchange.leaderboard_words import WEIGHTS, precision_text
from orchestrator.wire import Precision

NO_ORGANISATION = "_"
"""Folder of models whose name has no organisation, such as a folder's; no organisation of the Hub is called so."""


def of_model(model: str) -> str:
    """`org/name`, each part safe."""
    organisation, _, name = model.rpartition("/")
    return f"{slug(organisation) if organisation else NO_ORGANISATION}/{slug(name)}"


def request_file(suite: str, model: str, precision: Precision, weight_type: str, *, also: str = "") -> str:
    """`org/name_eval_request_False_bfloat16_Original.json`; `also` tells several requests apart that it would name."""
    more = f"_{also}" if also else ""
    weights = WEIGHTS.get(weight_type, "Original")
    return (
        f"{slug(suite)}/requests/{of_model(model)}_eval_request_False_{precision_text(precision)}_{weights}{more}.json"
    )


def results_file(suite: str, model: str, at: datetime) -> str:
    """`org/name/results_2026-03-04T12-40-00.000000.json`."""
    return f"{slug(suite)}/results/{of_model(model)}/results_{at:%Y-%m-%dT%H-%M-%S.%f}.json"


def samples_file(suite: str, model: str, task: str, at: datetime) -> str:
    """`org__name-details/samples_task_2026-03-04T12-40-00.000000.jsonl.zst`."""
    folder = of_model(model).replace("/", "__")
    return f"{slug(suite)}/details/{folder}-details/samples_{slug(task)}_{at:%Y-%m-%dT%H-%M-%S.%f}.jsonl.zst"
