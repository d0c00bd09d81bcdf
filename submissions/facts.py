"""What is known of a model before anything loads it: read once, then judged by `submissions.checks`.

Reading never decides: a file that is missing or damaged is a fact too.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from orchestrator.footprint import quantization
from orchestrator.wire import Precision
from submissions import cards, chat_templates
from submissions.headers import BYTES, MOST_ELEMENTS, TensorHeader, Unreadable
from submissions.repositories import Repository
from submissions.words import shown

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "tokenizer.model.v3",
)
"""Any of these makes a tokenizer for some class of transformers."""
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")
"""Those of them that the stages look for beside an adapter."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PACKED = frozenset({"I32", "U8", "U32", "I8"})
"""Dtypes that hold several quantised weights in one element, or one in eight bits."""
UNPACKED = 32
"""Bits of a weight that takes an element of its own."""
SMALL_FLOATS = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FN", "F8_E8M0", "F4"})
"""Dtypes that hold numbers only together with the scales that a quantisation keeps beside them."""
MOST_SHARDS = 1000
AT_ONCE = 8
"""Headers that are asked for at a time."""
DTYPES = {"BF16": Precision.BFLOAT16, "F16": Precision.FLOAT16, "F32": Precision.FLOAT32, "F64": Precision.FLOAT32}
CONFIG_DTYPES = {
    "bfloat16": Precision.BFLOAT16,
    "float16": Precision.FLOAT16,
    "half": Precision.FLOAT16,
    "float32": Precision.FLOAT32,
    "float": Precision.FLOAT32,
    "float64": Precision.FLOAT32,
}
Record = dict[str, Any]


@dataclass(frozen=True)
class Weights:
    """The safetensors of a model, from their headers."""

    files: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Files that the index names and the repository lacks."""
    damaged: str | None = None
    """What is wrong with a header or the index."""
    elements: Mapping[str, int] = field(default_factory=dict)
    """Number of stored elements by dtype, e.g. `{"BF16": 7241732096}`."""
    tensors: int = 0


@dataclass(frozen=True)
class ModelFacts:
    """One revision of one model."""

    name: str
    revision: str
    folder: str | None
    files: Mapping[str, int]
    config: Record | None
    tokenizer_config: Record | None
    adapter_config: Record | None
    has_chat_template: bool
    licence: str | None
    weights: Weights
    unreadable: Mapping[str, str]
    """File name to what is wrong with it."""
    chat_template: str | None = None
    """The text of the template; None where there is none, or none that could be read."""
    card: cards.Card = cards.NO_CARD
    is_private: bool = False
    tags: tuple[str, ...] = ()

    @property
    def organisation(self) -> str:
        """The part of a Hub id before the slash, in lower case; empty of a folder."""
        return self.name.partition("/")[0].casefold() if "/" in self.name else ""

    @property
    def architectures(self) -> tuple[str, ...]:
        named = (self.config or {}).get("architectures")
        return tuple(shown(str(name)) for name in named[:8]) if isinstance(named, list) else ()

    @property
    def has_tokenizer(self) -> bool:
        """Whether its tokenizer loads without config.json: what an adapter needs to be asked in its own words."""
        return self.tokenizer_config is not None and any(name in self.files for name in VOCABULARIES)

    @property
    def quantization(self) -> Record:
        """The config's quantisation section, as engines find it; empty when the weights are not quantised."""
        return quantization(self.config or {})

    @property
    def quantization_method(self) -> str:
        """`gptq`, `awq`, `bitsandbytes`, …; empty when the weights are not quantised."""
        return shown(str(self.quantization.get("quant_method") or "").lower())

    @property
    def weight_precision(self) -> Precision | None:
        """The floating type that most weights are stored in; None when that is none of the usual ones."""
        usual = {name: count for name, count in self.weights.elements.items() if name in DTYPES}
        return DTYPES[max(usual, key=lambda name: usual[name])] if usual else None

    @property
    def config_precision(self) -> Precision | None:
        """The type that config.json names, in its text part where there is one."""
        config = self.config or {}
        inner = config.get("text_config")
        for part in (config, inner if isinstance(inner, dict) else {}):
            named = str(part.get("dtype") or part.get("torch_dtype") or "").removeprefix("torch.")
            if named in CONFIG_DTYPES:
                return CONFIG_DTYPES[named]
        return None

    @property
    def parameters(self) -> int | None:
        """Number of weights; packed quantised ones are counted as what they unpack to. None when unknown."""
        if not self.weights.elements:
            return None
        return sum(count * self._unpacked(dtype) for dtype, count in self.weights.elements.items())

    @property
    def weight_bytes(self) -> int:
        return sum(count * BYTES.get(dtype, 1) for dtype, count in self.weights.elements.items())

    def _unpacked(self, dtype: str) -> int:
        if not self.quantization_method or dtype not in PACKED:
            return 1
        return max(1, BYTES.get(dtype, 1) * 8 // quantised_bits(self.quantization))


def quantised_bits(section: Record) -> int:
    """Bits of a packed weight, by the config's quantisation section; 8 where it says nothing of it."""
    named = f"{section.get('quant_method')} {section.get('quant_algo')}".lower()
    if section.get("load_in_4bit") or section.get("_load_in_4bit") or "fp4" in named:
        return 4
    groups = section.get("config_groups")  # of compressed-tensors, whose groups differ in their layers
    listed = list(groups.values()) if isinstance(groups, dict) else []
    weights = [group.get("weights") for group in listed if isinstance(group, dict)]
    counts = [section.get("bits"), section.get("w_bit")]
    counts += [one.get("num_bits") for one in weights if isinstance(one, dict)]
    found = next((count for count in counts if count is not None), 8)
    return found if type(found) is int and 1 <= found <= 8 else UNPACKED


def read_facts(repository: Repository) -> ModelFacts:
    """Everything the checks ask about, each file read once.

    Raises:
        SubmissionRefused: the repository is gated.
        HubAway: the Hub stopped answering.
    """
    unreadable: dict[str, str] = {}

    def record(path: str) -> Record | None:
        if path not in repository.files:
            return None
        try:
            value = json.loads(repository.text(path))
        except (Unreadable, ValueError, RecursionError) as error:
            unreadable[path] = str(error) if isinstance(error, Unreadable) else f"{path} is not valid JSON"
            return None
        if not isinstance(value, dict):
            unreadable[path] = f"{path} is not a JSON object"
            return None
        return value

    tokenizer_config = record("tokenizer_config.json")
    template = chat_templates.find_template(repository, tokenizer_config)
    card = cards.read_card(repository)
    return ModelFacts(
        name=repository.name,
        revision=repository.revision,
        folder=repository.folder,
        files=repository.files,
        config=record("config.json"),
        tokenizer_config=tokenizer_config,
        adapter_config=record("adapter_config.json"),
        has_chat_template=template is not None,
        licence=card.licence,
        weights=_read_weights(repository),
        unreadable=unreadable,
        chat_template=template,
        card=card,
        is_private=repository.is_private,
        tags=repository.tags,
    )


def _read_weights(repository: Repository) -> Weights:
    present = {name for name in repository.files if name.endswith(".safetensors") and "/" not in name}
    damaged: str | None = None
    wanted = set(present)
    missing: set[str] = set()
    index = "model.safetensors.index.json"
    if index in repository.files and "model.safetensors" not in present:
        try:
            named = _indexed(repository.text(index))
            missing = named - present
            wanted = named & present
        except Unreadable as error:
            damaged = str(error)
    elif "model.safetensors" in present:
        wanted = {"model.safetensors"}
    elif "adapter_model.safetensors" in present:
        wanted = {"adapter_model.safetensors"}
    if len(wanted) > MOST_SHARDS:
        damaged, wanted = damaged or f"it has its weights in {len(wanted)} files, and {MOST_SHARDS} are the most", set()
    elements: dict[str, int] = {}
    tensors = 0
    for header in _headers(repository, sorted(wanted)):
        if isinstance(header, Unreadable):
            damaged = damaged or str(header)
            continue
        tensors += header.tensors
        for dtype, count in header.elements.items():
            elements[dtype] = elements.get(dtype, 0) + count
    if sum(elements.values()) > MOST_ELEMENTS:
        damaged, elements = damaged or "its safetensors headers name more weights than any model has", {}
    return Weights(
        files=tuple(sorted(wanted)),
        missing=tuple(sorted(missing)),
        damaged=damaged,
        elements=elements,
        tensors=tensors,
    )


def _headers(repository: Repository, names: list[str]) -> Iterator[TensorHeader | Unreadable]:
    """Each file's header, or what is wrong with it."""

    def read(name: str) -> TensorHeader | Unreadable:
        try:
            return repository.header(name)
        except Unreadable as error:
            return error

    if repository.folder is not None or len(names) < 2:
        yield from map(read, names)
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(read, names)


def _indexed(text: str) -> set[str]:
    """The files that a safetensors index names: plain names only, an index may not point elsewhere."""
    try:
        named = {str(name) for name in json.loads(text)["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable("model.safetensors.index.json is damaged") from error
    if any("/" in name or "\\" in name or name.startswith(".") for name in named):
        raise Unreadable("model.safetensors.index.json names files outside the model's folder")
    return named
