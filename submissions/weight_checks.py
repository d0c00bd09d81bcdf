"""Are the weights there, whole, in safetensors and of a known type? Pure; reads no file."""

from orchestrator.wire import FailureKind
from submissions import adapters
from submissions.case import Case
from submissions.facts import PICKLES, SMALL_FLOATS, ModelFacts
from submissions.faults import Fault
from submissions.words import shown


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
    if weights.files and not weights.tensors:
        return fault(f"The safetensors of {model.name} hold no tensor. Upload the weights.")
    if weights.files:
        if model.weight_precision is None and not model.quantization_method:
            stored = ", ".join(sorted(weights.elements)[:4])
            small = SMALL_FLOATS & weights.elements.keys()
            why = "and config.json has no quantization_config" if small else "which no floating-point model is"
            return fault(
                f"The weights of {model.name} are stored as {stored}, {why}. Save them as bfloat16, float16 or "
                "float32, or with their quantization_config, and submit the new commit."
            )
        return None
    if any(name.endswith(PICKLES) for name in model.files):
        return fault(
            f"{model.name} has its weights as pickle files (.bin) only, which are never opened because they can run "
            "code. Convert them to safetensors (save_pretrained does) and submit the new commit."
        )
    return fault(f"{model.name} has no safetensors weights. Upload them and submit the new commit.")
