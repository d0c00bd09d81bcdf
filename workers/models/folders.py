"""Which folder holds what of a model: an adapter's config and weights lie in its base's folder, not in its own.

Looks only at which files are there; reads none of them.
"""

from pathlib import Path

from orchestrator.wire import FailureKind, Model
from workers.stage import StageFailure

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")
"""Any of these, with a tokenizer_config.json, makes a tokenizer that loads without the base model's config."""


def whole_folder(model: Model, model_folder: str | Path | None) -> Path:
    """The folder with config.json, generation_config.json and whole weights: the base model's for an adapter.

    Raises:
        StageFailure: no folder was given for them.
    """
    folder = model.base_folder if model.weight_type == "adapter" else model_folder
    if folder is None:
        what = (
            f"the base model of the adapter {model.name}" if model.weight_type == "adapter" else f"model {model.name}"
        )
        field = "model.base_folder" if model.weight_type == "adapter" else "model_folder"
        raise StageFailure(FailureKind.CONFIG, f"No folder was given for {what}. Set {field} in the work file.")
    return Path(folder)


def tokenizer_folder(model: Model, model_folder: str | Path | None) -> Path:
    """The folder with the tokenizer and its chat template: an adapter's own when it was saved with one.

    A fine-tune is asked in the words it was trained in; most adapters bring the tokenizer of their training along.
    """
    whole = whole_folder(model, model_folder)
    if model.weight_type != "adapter" or model_folder is None:
        return whole
    own = Path(model_folder)
    has_own = (own / "tokenizer_config.json").is_file() and any((own / name).is_file() for name in VOCABULARIES)
    return own if has_own else whole
