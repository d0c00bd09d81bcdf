"""What the installed engine knows: architectures and ways of quantising, read from its own registry.

The registry's source is parsed and never imported: that would take seconds and a GPU's memory, and a worker says this
in a heartbeat. What cannot be parsed is not known, and then nobody is refused for it.
"""

import ast
import functools
import logging
import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchestrator.wire import EngineFamily, EngineKnowledge

log = logging.getLogger(__name__)

GENERATING = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS")
"""Tables of vLLM's registry; its others embed, classify or draft."""
DROPPED = "_PREVIOUSLY_SUPPORTED_MODELS"
CAUSAL = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
"""Of transformers: model type to the class that generates."""
ALSO = ("auto-round", "bitsandbytes", "compressed_tensors", "gguf", "intel/auto-round")
"""Ways of quantising that vLLM has from packages of their own, if those are installed, or reads under another name:
its source does not list them, and whether they work is for the engine to say."""


@functools.cache
def engine_knowledge(family: EngineFamily) -> EngineKnowledge | None:
    """What the engine in this environment says that it loads; None where it says nothing, or answers for any model."""
    try:
        if family is EngineFamily.VLLM:
            return _of_vllm()
        if family is EngineFamily.TRANSFORMERS:
            return EngineKnowledge(architectures=_sorted(_causal_classes().values()))
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("what %s knows cannot be read (%s)", family.value, error)
    return None


def _of_vllm() -> EngineKnowledge:
    folder = _package("vllm")
    tables = _assigned(folder / "model_executor/models/registry.py")
    own = {name for table in GENERATING for name in _keys(tables[table])}
    methods = _words(_assigned(folder / "model_executor/layers/quantization/__init__.py")["QuantizationMethods"])
    dropped: dict[str, str] = ast.literal_eval(tables[DROPPED]) if DROPPED in tables else {}
    known = own | _through_transformers()
    return EngineKnowledge(
        architectures=_sorted(known),
        dropped={name: version for name, version in sorted(dropped.items()) if name not in known},
        quantisations=_sorted([*methods, *ALSO]),
    )


def _through_transformers() -> set[str]:
    """Classes of transformers that vLLM runs although it has no code of its own for them.

    By its rule (`_try_resolve_transformers`, vLLM 0.32): they say that their attention can be replaced, or their module
    leaves it to the interface for that.
    """
    models = _package("transformers") / "models"
    found = set()
    for model_type, name in _causal_classes().items():
        module = _module(models, model_type, name)
        if module is not None and _attention_is_open(module):
            found.add(name)
    return found


def _attention_is_open(source: str) -> bool:
    if "_supports_attention_backend = True" in source or "ALL_ATTENTION_FUNCTIONS.get_interface(" in source:
        return True
    return re.search(r"^class \w*Attention\w*\(nn\.Module\):", source, re.MULTILINE) is None


def _module(models: Path, model_type: str, name: str) -> str | None:
    """The source of a class's module; its folder is named after the model type, or nearly so."""
    for folder in (model_type, model_type.replace("-", "_"), model_type.replace("-", "_").removesuffix("_text")):
        file = models / folder / f"modeling_{folder}.py"
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            return text if f"class {name}(" in text else None
    return None


def _causal_classes() -> Mapping[str, str]:
    tables = _assigned(_package("transformers") / "models/auto/modeling_auto.py")
    value = tables[CAUSAL]
    assert isinstance(value, ast.Call)
    return {str(model_type): str(name) for model_type, name in ast.literal_eval(value.args[0]) if isinstance(name, str)}


def _assigned(file: Path) -> dict[str, ast.expr]:
    """What a module assigns to names, at its top."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: dict[str, ast.expr] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(target := statement.targets[0], ast.Name):
            found[target.id] = statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value and isinstance(statement.target, ast.Name):
            found[statement.target.id] = statement.value
    return found


def _keys(value: ast.expr) -> list[str]:
    assert isinstance(value, ast.Dict)
    return [key.value for key in value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def _words(value: ast.expr) -> list[str]:
    """The words of a `Literal[…]`."""
    return [part.value for part in ast.walk(value) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def _package(name: str) -> Path:
    spec: Any = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise OSError(f"there is no package {name}")
    return Path(next(iter(spec.submodule_search_locations)))


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
