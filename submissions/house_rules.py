"""What this site asks of a model beside that it can be evaluated: licence, model card, no denial. Pure."""

from submissions.case import Case
from submissions.faults import Fault
from submissions.words import shown


def check_denied(case: Case) -> Fault | None:
    """By every name that is known of it, as a repository may have been renamed."""
    named = (case.model.adapter_config or {}).get("base_model_name_or_path") if case.is_adapter else None
    names = (
        *case.asked_names,
        case.model.name,
        *([str(named)] if named else ()),
        *([case.base.name] if case.base else ()),
    )
    denied = next((name for name in names if case.rules.denies(name)), None)
    if denied is None:
        return None
    return Fault(
        "model",
        f"{shown(denied)} is not evaluated here, by its authors' or the operators' wish. Submit another model, or ask "
        "the operators (EVALYARD_DENIED_MODELS).",
    )


def check_licence(case: Case) -> Fault | None:
    model = case.model
    if not case.rules.asks_licence or model.folder is not None or model.card.has_licence:
        return None
    return Fault(
        "model",
        f"The model card of {model.name} names no licence. Add `license:` to its header, or `license: other` with "
        "`license_name` and `license_link`, and submit the new commit.",
    )


def check_card(case: Case) -> Fault | None:
    model, least = case.model, case.rules.least_card
    if model.folder is not None or model.card.characters >= least:
        return None
    has = f"has {model.card.characters} characters" if model.card.characters else "is missing or empty"
    return Fault(
        "model",
        f"The model card of {model.name} {has}, and {least} are asked for here. Say in README.md what the model is and "
        "how it was made, and submit the new commit.",
    )
