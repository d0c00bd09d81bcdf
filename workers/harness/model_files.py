"""What a model folder says without its weights: tokenizer, context limit, chat template, identity.

Both back ends' rules for these are repeated here because theirs need the engine: lm-eval's `hf` class imports torch,
its `vllm` class starts vLLM. Never loads weights or code of the model.
"""

import hashlib
import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.wire import FailureKind, Model, Precision, canonical_json
from workers.models import folders as model_folders
from workers.stage import StageFailure

Rules = Literal["vllm", "hf"]

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "merges.txt",
    "added_tokens.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json", "tekken.json",
)  # fmt: skip

LIMIT_KEYS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
"""vLLM 0.32 takes the smallest of these (`ModelArchConfigConvertorBase.derive_max_model_len_and_key`)."""

HF_LIMIT_KEYS = ("n_positions", "max_position_embeddings", "n_ctx")
HF_DEFAULT_LIMIT = 2048
NO_LIMIT = int(1e30)
"""What tokenizers of transformers say when their configuration names no limit."""

SCALED_ALREADY = {"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"}
"""RoPE types whose factor vLLM does not apply to the limit, beside `default`, which has none."""


@dataclass(frozen=True)
class ModelFiles:
    folder: Path
    """With config.json and generation_config.json: the base model's for an adapter."""
    tokenizer_folder: Path
    rules: Rules
    config: Any
    tokenizer: Any
    context_limit: int
    chat_template: str | None
    """As the back end would choose it; None when the model has none."""

    @property
    def tokenizer_digest(self) -> str:
        digest = hashlib.sha256()
        for name in TOKENIZER_FILES:
            if (self.tokenizer_folder / name).is_file():
                digest.update(name.encode() + b"\0" + (self.tokenizer_folder / name).read_bytes())
        return f"sha256-{digest.hexdigest()}"


def load(model: Model, model_folder: str | None, rules: Rules, *, context_limit: int | None = None) -> ModelFiles:
    """Tokenizer and config of a model, as the named back end would load them.

    Raises:
        StageFailure: CONFIG, TOKENIZER or REMOTE_CODE, with the next step.
    """
    folder = _folder(model, model_folder)
    tokenizer_folder = model_folders.tokenizer_folder(model, model_folder or model.folder)
    transformers = importlib.import_module("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except StageFailure:
        raise
    except Exception as error:
        raise _unreadable(
            FailureKind.CONFIG, f"Model {model.name} has a config.json that transformers cannot read", error
        ) from error
    # vLLM asks for left truncation and keeps transformers' own Mistral conversion off; neither changes an encoding.
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder, trust_remote_code=False, use_fast=True)
    except StageFailure:
        raise
    except Exception as error:
        raise _unreadable(
            FailureKind.TOKENIZER, f"The tokenizer of model {model.name} cannot be loaded", error
        ) from error
    lm_eval_utils = importlib.import_module("lm_eval.models.utils")
    tokenizer = lm_eval_utils.configure_pad_token(tokenizer, model_config=config)
    limit = context_limit or (vllm_context_limit(config) if rules == "vllm" else hf_context_limit(config, tokenizer))
    template = _vllm_chat_template(folder, tokenizer) if rules == "vllm" else _tokenizer_chat_template(tokenizer)
    return ModelFiles(folder, tokenizer_folder, rules, config, tokenizer, limit, template)


def identity(model: Model, files: ModelFiles) -> dict[str, Any]:
    """The model's part of the identity that addresses responses; the hub adds engine and device type."""
    quantization = _quantization(model.precision, files.config)
    dtype = _dtype(model.precision, files.config)
    return {
        "weights": model.revision,
        "base": model.base_revision,
        "adapter": model.revision if model.weight_type == "adapter" else None,
        "dtype": dtype,
        "quantization": quantization,
        "kv_cache_dtype": dtype,
        "context_limit": files.context_limit,
        "overrides": {},
        "generation_config": _generation_config_digest(files.folder),
    }


def vllm_context_limit(config: Any) -> int:
    """Tokens that vLLM 0.32 derives from a config when none are given (`_get_and_verify_max_len`)."""
    text = config.get_text_config()
    found = [value for key in LIMIT_KEYS if isinstance(value := getattr(text, key, None), int | float)]
    limit = float(min(found, default=2048))
    if own := getattr(text, "model_max_length", None):
        limit = float(own)
    rope = list(_rope_parameters(text))
    if rope and "gemma3" not in str(config.model_type):
        factor = 1.0
        for parameters in rope:
            if parameters.get("rope_type") not in SCALED_ALREADY:
                factor = float(parameters.get("factor") or factor)
        limit *= factor
    if any(parameters.get("rope_type") == "longrope" for parameters in rope):
        limit = float(getattr(config, "original_max_position_embeddings", None) or limit)
    return int(limit)


def hf_context_limit(config: Any, tokenizer: Any) -> int:
    """Tokens that lm-eval 0.4.13's hf back end derives (`resolve_max_length`), whichever lm-eval runs here."""
    text = getattr(config, "text_config", None) or config
    found = [value for key in HF_LIMIT_KEYS if (value := getattr(text, key, None)) is not None]
    if found:
        return int(found[0])
    length = getattr(tokenizer, "model_max_length", None)
    return HF_DEFAULT_LIMIT if length is None or length == NO_LIMIT else int(length)


def _rope_parameters(text: Any) -> Iterator[dict[str, Any]]:
    parameters = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    if not isinstance(parameters, dict):
        return
    if "rope_type" in parameters:
        yield parameters
        return
    # One set of parameters for each kind of attention layer.
    yield from (value for value in parameters.values() if isinstance(value, dict))


def _vllm_chat_template(folder: Path, tokenizer: Any) -> str | None:
    """vLLM prefers the template of a multimodal model's processor to the tokenizer's (`resolve_chat_template`)."""
    if any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        for name in ("chat_template.json", "processor_config.json"):
            template = _json(folder / name).get("chat_template")
            if isinstance(template, str):
                return template
    return _tokenizer_chat_template(tokenizer)


def _tokenizer_chat_template(tokenizer: Any) -> str | None:
    try:
        return str(tokenizer.get_chat_template(None, tools=None))
    except Exception:  # transformers says ValueError for "none", other tokenizers say other things
        return None


def _folder(model: Model, model_folder: str | None) -> Path:
    folder = model_folders.whole_folder(model, model_folder or model.folder)
    if (folder / "config.json").is_file():
        return folder
    name = model.base_name if model.weight_type == "adapter" else model.name
    raise StageFailure(FailureKind.CONFIG, f"Model {name} has no config.json. Upload one with the weights.")


def _unreadable(kind: FailureKind, what: str, error: Exception) -> StageFailure:
    text = str(error)
    if "trust_remote_code" in text or "custom code" in text:
        kind = FailureKind.REMOTE_CODE
        what = what.replace("cannot be loaded", "needs its own Python code").replace(
            "has a config.json that transformers cannot read", "needs its own Python code"
        )
        return StageFailure(kind, f"{what}, which is never run here. Use a model whose code is part of transformers.")
    reason = text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__
    return StageFailure(kind, f"{what}: {reason} Check that it loads with this harness's transformers release.")


def _generation_config_digest(folder: Path) -> str | None:
    path = folder / "generation_config.json"
    if not path.is_file():
        return None
    settings = {key: value for key, value in _json(path).items() if key != "transformers_version"}
    return hashlib.sha256(canonical_json(settings)).hexdigest()[:32]


def _quantization(precision: Precision, config: Any) -> str | None:
    own = getattr(config, "quantization_config", None)
    if own:
        method = own.get("quant_method") if isinstance(own, dict) else getattr(own, "quant_method", None)
        return str(getattr(method, "value", method))
    return precision.value if precision in (Precision.EIGHT_BIT, Precision.FOUR_BIT, Precision.GPTQ) else None


def _dtype(precision: Precision, config: Any) -> str:
    """What is computed in. Engines read it in the identity: for quantised weights it is the config's 16-bit type."""
    if precision in (Precision.BFLOAT16, Precision.FLOAT16, Precision.FLOAT32):
        return precision.value
    # Multimodal models may say it of their text part only.
    named = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    stored = str(named or "").removeprefix("torch.")
    return stored if stored in ("bfloat16", "float16") else "float16"


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
