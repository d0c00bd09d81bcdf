"""May this model be evaluated as asked? Small pure functions over facts; each finds one fault or nothing.

`submissions.findings` asks all of them, so that a person sees everything at once. No check reads a file or the network.
"""

import functools

from orchestrator.footprint import footprint, kept_facts
from orchestrator.wire import FailureKind
from submissions.case import Case
from submissions.facts import TOKENIZER_FILES
from submissions.faults import Fault
from submissions.precision import resolve_precision
from submissions.words import shown

NOT_GENERATIVE = (
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForImageClassification",
    "ForMultipleChoice",
    "ForPreTraining",
    "ForNextSentencePrediction",
)
SPEAKING = ("LMHeadModel", "ChatGLMModel")
"""Ends of names that generate although they end as a model without a head does."""
WITHOUT_A_HEAD = "Model"


def check_adapter_kind(case: Case) -> Fault | None:
    """An adapter is submitted as one, and only an adapter is."""
    if case.is_adapter and case.model.adapter_config is None:
        why = case.model.unreadable.get("adapter_config.json", "it has no adapter_config.json")
        return Fault(
            "weight_type",
            f"{case.model.name} is not an adapter that can be read: {why}. Submit it with weight type 'original'.",
            FailureKind.CONFIG,
        )
    if case.holds_adapter and not case.is_adapter and case.objection is None:
        named = (case.model.adapter_config or {}).get("base_model_name_or_path")
        base = f" and base model {shown(str(named))}" if named else " and its base model"
        return Fault("weight_type", f"{case.model.name} is an adapter. Submit it with weight type 'adapter'{base}.")
    return None


def check_adapter_base(case: Case) -> Fault | None:
    if not case.is_adapter or not case.holds_adapter or case.base is not None or case.objection is not None:
        return None
    named = (case.model.adapter_config or {}).get("base_model_name_or_path")
    which = f" Its config names '{shown(str(named))}', which is no Hub id." if named else ""
    return Fault("base_model", f"{case.model.name} is submitted as an adapter.{which} Name its base model.")


def check_adapter_applied(case: Case) -> Fault | None:
    """Said here, before anybody waits for an engine that cannot apply it or goes looking for its base model."""
    if case.objection is None:
        return None
    return Fault(
        "weight_type",
        f"{case.model.name} {case.objection}. Merge it into its base model (PEFT's merge_and_unload) and submit the "
        "result.",
        FailureKind.ARCHITECTURE,
    )


def check_config(case: Case) -> Fault | None:
    whole = case.whole
    if whole is None or whole.config is not None:
        return None
    if not case.is_adapter and whole.adapter_config is not None:
        return None  # said by the checks of adapters
    if why := whole.unreadable.get("config.json"):
        return Fault(case.whole_field, f"{whole.name}: {why}. Mend it and submit the new commit.", FailureKind.CONFIG)
    if any(name.endswith(".gguf") for name in whole.files):
        return Fault(
            case.whole_field,
            f"{whole.name} holds GGUF files only. Submit the repository of the original safetensors weights.",
            FailureKind.CONFIG,
        )
    return Fault(
        case.whole_field,
        f"{whole.name} has no config.json, so it is no transformers model. Add it and submit the new commit.",
        FailureKind.CONFIG,
    )


def check_remote_code(case: Case) -> Fault | None:
    """Custom code is refused where transformers does not know the model type by itself."""
    whole = case.whole
    if whole is None or whole.config is None:
        return None
    model_type = str(whole.config.get("model_type") or "")
    known = _known_model_types() if whole.config.get("auto_map") or not model_type else None
    if known is None or model_type in known:
        return None
    if not model_type and not whole.config.get("auto_map"):
        return Fault(
            case.whole_field,
            f"{whole.name}: config.json names no model_type. Add it and submit the new commit.",
            FailureKind.CONFIG,
        )
    return Fault(
        case.whole_field,
        f"{whole.name} only loads with its repository's own Python code (model type '{shown(model_type)}'), and "
        "Evalyard runs no code of a model. Submit a version that transformers loads by itself.",
        FailureKind.REMOTE_CODE,
    )


def check_generative(case: Case) -> Fault | None:
    whole = case.whole
    if whole is None or not whole.architectures:
        return None
    named = [name for name in whole.architectures if not _speaks(name)]
    if len(named) < len(whole.architectures):
        return None
    return Fault(
        case.whole_field,
        f"{whole.name} is a {shown(named[0])}: it does not generate text, which every benchmark here needs. "
        "Submit a causal language model.",
        FailureKind.ARCHITECTURE,
    )


def _speaks(architecture: str) -> bool:
    if architecture.endswith(SPEAKING):
        return True
    return not architecture.endswith((*NOT_GENERATIVE, WITHOUT_A_HEAD))


def check_architecture(case: Case) -> Fault | None:
    """Asked of the engine's own registry, as the workers have it."""
    whole, fleet = case.whole, case.fleet
    if whole is None or not whole.architectures or fleet.architectures is None:
        return None
    if any(name in fleet.architectures for name in whole.architectures):
        return None
    if check_generative(case) is not None or check_remote_code(case) is not None:
        return None  # said there, and it comes to the same
    named = whole.architectures[0]
    once = next((fleet.dropped[name] for name in whole.architectures if name in fleet.dropped), None)
    until = f" ({once} was its last version that did)" if once else ""
    return Fault(
        case.whole_field,
        f"{whole.name} is a {named}, which {fleet.engine} does not know{until}. Ask the operators for an engine that "
        "does, or submit a model of an architecture that it knows.",
        FailureKind.ARCHITECTURE,
    )


def check_size(case: Case) -> Fault | None:
    """Against the largest worker that this hub knows."""
    whole = case.whole
    if whole is None or not whole.config or not whole.weight_bytes:
        return None
    stored = whole.weight_bytes + (case.model.weight_bytes if case.is_adapter else 0)
    lacks = case.fleet.lacks_room(footprint(kept_facts(whole.config), resolve_precision(case), stored))
    if lacks is None:
        return None
    return Fault(
        case.whole_field,
        f"{whole.name} {lacks}. Submit a smaller or a quantised one, or ask the operators for more memory.",
        FailureKind.OUT_OF_MEMORY,
    )


def check_tokenizer(case: Case) -> Fault | None:
    owner = case.speaker
    if owner is None or case.whole is None or case.whole.config is None:
        return None
    field = "model" if owner is case.model else case.whole_field
    if why := owner.unreadable.get("tokenizer_config.json"):
        return Fault(field, f"{owner.name}: {why}. Mend it and submit the new commit.", FailureKind.TOKENIZER)
    if any(name in owner.files for name in TOKENIZER_FILES):
        return None
    custom = (owner.tokenizer_config or {}).get("auto_map")
    if isinstance(custom, dict) and "AutoTokenizer" in custom:
        return Fault(
            field,
            f"The tokenizer of {owner.name} only loads with the repository's own Python code, and Evalyard runs "
            "no code of a model. Add a tokenizer.json and submit the new commit.",
            FailureKind.REMOTE_CODE,
        )
    return Fault(
        field,
        f"{owner.name} has no tokenizer files. Add them (tokenizer.save_pretrained) and submit the new commit.",
        FailureKind.TOKENIZER,
    )


def check_chat_template(case: Case) -> Fault | None:
    owner = case.speaker
    if not case.chat_template or owner is None or case.whole is None or case.whole.config is None:
        return None
    if case.template_fault is not None:
        return Fault(
            "chat_template",
            f"The chat template of {owner.name} {case.template_fault}. Submit it without one (--no-chat-template), or "
            "mend it and submit the new commit.",
            FailureKind.CHAT_TEMPLATE,
        )
    if owner.has_chat_template:
        return None
    return Fault(
        "chat_template",
        f"{owner.name} has no chat template, in chat_template.jinja or in tokenizer_config.json, or several and none "
        "called 'default'. Submit it without one (--no-chat-template), or add it and submit the new commit.",
        FailureKind.CHAT_TEMPLATE,
    )


@functools.cache
def _known_model_types() -> frozenset[str] | None:
    """Model types that the installed transformers loads without remote code; None where it is not installed."""
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    except ImportError:
        return None
    return frozenset(CONFIG_MAPPING_NAMES)
