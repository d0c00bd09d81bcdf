"""What weights can be loaded as: which precision `auto` is, and whether the one asked for is possible. Pure."""

from orchestrator.wire import EngineFamily, FailureKind, Precision
from submissions.case import Case
from submissions.facts import ModelFacts
from submissions.faults import Fault
from submissions.words import shown

BITSANDBYTES = (Precision.EIGHT_BIT, Precision.FOUR_BIT)
FLOATING = (Precision.BFLOAT16, Precision.FLOAT16, Precision.FLOAT32)


def resolve_precision(case: Case) -> Precision:
    """What `auto` means for these weights; a precision that was asked for stays."""
    if case.precision is not None:
        return case.precision
    whole = case.whole or case.model
    if whole.quantization_method == "gptq":
        return Precision.GPTQ
    if whole.quantization_method == "bitsandbytes":
        return Precision.FOUR_BIT if _is_four_bit(whole) else Precision.EIGHT_BIT
    named, stored = whole.config_precision, whole.weight_precision
    if named is Precision.FLOAT16 and stored is Precision.BFLOAT16 and not whole.quantization_method:
        return stored  # the config is wrong about them, and float16 cannot hold their range
    return named or stored or Precision.BFLOAT16


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


def check_quantisation(case: Case) -> Fault | None:
    """Asked of the engine's own list, as the workers have it; what a device or a kernel lacks only the engine knows."""
    whole, known = case.whole, case.fleet.quantisations
    method = whole.quantization_method if whole is not None else ""
    if whole is None or not method or not known or method in known:
        return None
    return _precision(
        f"The weights of {whole.name} are quantised with {method}, which {case.fleet.engine} does not load. Submit the "
        "unquantised weights, or ask the operators for an engine that has it."
    )


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


def _precision(sentence: str) -> Fault:
    return Fault("precision", sentence, FailureKind.PRECISION)


def _is_four_bit(model: ModelFacts) -> bool:
    return bool(model.quantization.get("load_in_4bit") or model.quantization.get("_load_in_4bit"))
