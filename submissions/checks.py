"""May this model be evaluated as asked? Small pure functions over facts; each finds one fault or nothing.

All of them are asked, so that a person sees everything at once. No check reads a file or the network.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.wire import EngineFamily, FailureKind, Precision
from submissions import adapters
from submissions.facts import PICKLES, TOKENIZER_FILES, ModelFacts
from submissions.faults import Fault
from submissions.hub import shown

BITSANDBYTES = (Precision.EIGHT_BIT, Precision.FOUR_BIT)
FLOATING = (Precision.BFLOAT16, Precision.FLOAT16, Precision.FLOAT32)
NOT_GENERATIVE = (
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForImageClassification",
    "ForMultipleChoice",
)


@dataclass(frozen=True)
class Case:
    """A model as somebody wants it evaluated."""

    model: ModelFacts
    base: ModelFacts | None = None
    """The base model of an adapter."""
    precision: Precision | None = None
    """None asks for `auto`."""
    weight_type: str = "original"
    chat_template: bool = False
    engine: EngineFamily = EngineFamily.VLLM
    has_gpu: bool | None = None
    """Whether any engine worker has a GPU; None when no engine worker is known."""

    @property
    def is_adapter(self) -> bool:
        return self.weight_type == "adapter"

    @property
    def holds_adapter(self) -> bool:
        """Whether the repository is an adapter, whatever it was submitted as; some whole models keep one beside."""
        return self.model.adapter_config is not None and (self.is_adapter or self.model.config is None)

    @property
    def objection(self) -> str | None:
        """What stands against applying the adapter, whatever its base is."""
        return adapters.objection(self.model.adapter_config or {}, self.engine) if self.holds_adapter else None

    @property
    def whole(self) -> ModelFacts | None:
        """The model whose config counts: an adapter's base, else the model itself."""
        return self.base if self.is_adapter else self.model

    @property
    def speaker(self) -> ModelFacts | None:
        """The model whose tokenizer and chat template count: an adapter that was saved with one brings its own."""
        return self.model if self.is_adapter and self.model.has_tokenizer else self.whole

    @property
    def whole_field(self) -> str:
        return "base_model" if self.is_adapter else "model"


Check = Callable[[Case], Fault | None]


def find_faults(case: Case) -> list[Fault]:
    """Every fault, in the order in which a person would mend them."""
    return [_for_folder(case, fault) for check in CHECKS if (fault := check(case)) is not None]


def _for_folder(case: Case, fault: Fault) -> Fault:
    """A folder has no commits: what is mended in it is submitted as it then is."""
    about = case.base if fault.field == "base_model" else case.model
    if about is None or about.folder is None:
        return fault
    sentence = fault.sentence.replace("submit the new commit", "submit the folder again")
    return fault._replace(sentence=sentence)


def resolve_precision(case: Case) -> Precision:
    """What `auto` means for these weights; a precision that was asked for stays."""
    if case.precision is not None:
        return case.precision
    whole = case.whole or case.model
    if whole.quantization_method == "gptq":
        return Precision.GPTQ
    if whole.quantization_method == "bitsandbytes":
        return Precision.FOUR_BIT if _is_four_bit(whole) else Precision.EIGHT_BIT
    return whole.config_precision or whole.weight_precision or Precision.BFLOAT16


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
    named = [name for name in whole.architectures if name.endswith(NOT_GENERATIVE)]
    if len(named) < len(whole.architectures):
        return None
    return Fault(
        case.whole_field,
        f"{whole.name} is a {shown(named[0])}: it does not generate text, which every benchmark here needs. "
        "Submit a causal language model.",
        FailureKind.ARCHITECTURE,
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


def check_model_weights(case: Case) -> Fault | None:
    if case.is_adapter and case.holds_adapter and adapters.WEIGHTS not in case.model.files:
        return Fault(
            "model",
            f"{case.model.name} has no {adapters.WEIGHTS}. Pickled ones (.bin) are never opened because they can run "
            "code: convert them (save_pretrained does) and submit the new commit.",
            FailureKind.WEIGHTS,
        )
    return _check_weights(case.model, field="model")


def check_base_weights(case: Case) -> Fault | None:
    return _check_weights(case.base, field="base_model") if case.is_adapter and case.base else None


def check_precision(case: Case) -> Fault | None:
    """A precision is what the weights can be loaded as: quantised ones as they are, bfloat16 never as float16."""
    whole, asked = case.whole, case.precision
    if whole is None or whole.config is None or asked is None:
        return None
    method = whole.quantization_method
    if asked is Precision.GPTQ and method != "gptq":
        stored = f"they are quantised with {shown(method)}" if method else "config.json has no quantization_config"
        return _precision(f"The weights of {whole.name} are not GPTQ: {stored}. Choose precision 'auto'.")
    if asked is not Precision.GPTQ and method == "gptq":
        return _precision(f"The weights of {whole.name} are GPTQ. Choose precision 'gptq' or 'auto'.")
    if asked in BITSANDBYTES and method == "bitsandbytes":
        stored_as = Precision.FOUR_BIT if _is_four_bit(whole) else Precision.EIGHT_BIT
        if stored_as is not asked:
            return _precision(f"The weights of {whole.name} are stored in {stored_as}. Choose that, or 'auto'.")
        return None
    if asked in BITSANDBYTES and method:
        return _precision(
            f"The weights of {whole.name} are quantised with {shown(method)} already and cannot become {asked}. "
            "Choose precision 'auto'."
        )
    if asked is Precision.EIGHT_BIT and case.engine is EngineFamily.VLLM and not method:
        others = "'bfloat16' or 'auto'" if case.has_gpu is False else "'4bit' (on a GPU), 'bfloat16' or 'auto'"
        return _precision(
            f"vLLM loads 8-bit weights only where the repository holds them, and those of {whole.name} are not "
            f"quantised. Choose {others}."
        )
    if asked in FLOATING and method == "bitsandbytes":
        return _precision(f"The weights of {whole.name} are quantised with bitsandbytes. Choose precision 'auto'.")
    stored_in = whole.weight_precision or whole.config_precision
    if asked is Precision.FLOAT16 and stored_in is Precision.BFLOAT16 and not method:
        return _precision(
            f"The weights of {whole.name} are bfloat16, and float16 cannot hold their range (answers become NaN). "
            "Choose 'bfloat16', 'float32' or 'auto'."
        )
    return None


def check_gpu(case: Case) -> Fault | None:
    """vLLM computes with bitsandbytes weights on GPUs alone. Said here, before anybody waits for such a worker."""
    if case.has_gpu is not False or case.engine is not EngineFamily.VLLM or check_precision(case) is not None:
        return None
    needed = resolve_precision(case)
    if needed not in BITSANDBYTES:
        return None
    stored = case.whole is not None and case.whole.quantization_method == "bitsandbytes"
    other = "Submit the unquantised weights" if stored else "Choose 'bfloat16', 'float32' or 'auto'"
    return _precision(
        f"{needed} needs an engine worker with a GPU, and none here has one. {other}, or connect such a worker and "
        "submit again."
    )


def check_chat_template(case: Case) -> Fault | None:
    owner = case.speaker
    if not case.chat_template or owner is None or owner.has_chat_template:
        return None
    if case.whole is None or case.whole.config is None:
        return None
    return Fault(
        "chat_template",
        f"{owner.name} has no chat template, in tokenizer_config.json or in chat_template.jinja. "
        "Submit it without one (--no-chat-template), or add it and submit the new commit.",
        FailureKind.CHAT_TEMPLATE,
    )


CHECKS: tuple[Check, ...] = (
    check_adapter_kind,
    check_adapter_base,
    check_adapter_applied,
    check_config,
    check_remote_code,
    check_generative,
    check_tokenizer,
    check_model_weights,
    check_base_weights,
    check_precision,
    check_gpu,
    check_chat_template,
)


def _check_weights(model: ModelFacts, *, field: str) -> Fault | None:
    weights = model.weights

    def fault(sentence: str) -> Fault:
        return Fault(field, sentence, FailureKind.WEIGHTS)

    if weights.damaged:
        return fault(f"{model.name}: {weights.damaged}. Upload the weights again and submit the new commit.")
    if weights.missing:
        listed = ", ".join(shown(name) for name in weights.missing[:3])
        more = f" and {len(weights.missing) - 3} more" if len(weights.missing) > 3 else ""
        return fault(f"{model.name} lacks weights that its index names: {listed}{more}. Upload them and submit again.")
    if weights.files:
        return (
            None if weights.tensors else fault(f"The safetensors of {model.name} hold no tensor. Upload the weights.")
        )
    if any(name.endswith(PICKLES) for name in model.files):
        return fault(
            f"{model.name} has its weights as pickle files (.bin) only, which are never opened because they can run "
            "code. Convert them to safetensors (save_pretrained does) and submit the new commit."
        )
    return fault(f"{model.name} has no safetensors weights. Upload them and submit the new commit.")


def _precision(sentence: str) -> Fault:
    return Fault("precision", sentence, FailureKind.PRECISION)


def _is_four_bit(model: ModelFacts) -> bool:
    return bool(model.quantization.get("load_in_4bit") or model.quantization.get("_load_in_4bit"))


@functools.cache
def _known_model_types() -> frozenset[str] | None:
    """Model types that the installed transformers loads without remote code; None where it is not installed."""
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    except ImportError:
        return None
    return frozenset(CONFIG_MAPPING_NAMES)
