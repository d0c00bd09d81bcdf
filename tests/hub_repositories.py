"""Repositories for the Hub stub: good, odd and hostile, each with what must become of it.

Each is made from one sound tiny model by a change of its own. `REPOSITORIES` is the table; tests walk it.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from orchestrator.wire import FailureKind
from tests.hub_stub import HubStub
from tests.tiny import CHAT_TEMPLATE

Change = Callable[[Path], object]

CARD = "---\nlicense: apache-2.0\n---\n# A tiny model\n" + "It answers nonsense, always the same. " * 8
MARKUP = "<script>alert('owned')</script>"
WIDTHS = {"BF16": 2, "F16": 2, "F32": 4, "I64": 8, "I32": 4, "U8": 1, "F8_E4M3": 1}


@dataclass(frozen=True)
class Made:
    """One repository, and what a submission of it must meet."""

    name: str
    change: Change
    kind: FailureKind | None = None
    """Class of the refusal; None with `words` for one that has none."""
    words: str = ""
    """Of the refusal's sentence; empty where it is accepted."""
    field: str = "model"
    asked: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ends: str = "finished"
    """Of an accepted one, with an engine that answers anything."""

    @property
    def is_accepted(self) -> bool:
        return not self.words


def edit(file: str, **changes: Any) -> Change:
    """Change a JSON file; None removes a key."""

    def change(folder: Path) -> None:
        path = folder / file
        content = (json.loads(path.read_text()) if path.exists() else {}) | changes
        path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return change


def without(*files: str) -> Change:
    def change(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return change


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def write(file: str, content: str | bytes) -> Change:
    def change(folder: Path) -> None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def all_of(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def raw(folder: Path, tensors: Mapping[str, tuple[str, list[int]]], *, file: str = "model.safetensors") -> None:
    """A safetensors file of zeros; it takes no room on the disk however large it says it is."""
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = int(np.prod(shape, dtype=object)) * WIDTHS[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / file).open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + end)


def stored(kind: str, *, elements: int = 4096, **config: Any) -> Change:
    return all_of(
        lambda folder: raw(folder, {"model.embed_tokens.weight": (kind, [elements])}),
        edit("config.json", **config),
    )


def sharded(folder: Path) -> None:
    tensors = sorted(load_file(folder / "model.safetensors").items())
    (folder / "model.safetensors").unlink()
    where: dict[str, str] = {}
    for number, part in enumerate((tensors[::2], tensors[1::2]), start=1):
        name = f"model-{number:05}-of-00002.safetensors"
        save_file(dict(part), folder / name, metadata={"format": "pt"})
        where |= dict.fromkeys((tensor for tensor, _ in part), name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def index_of(*files: str) -> Change:
    def change(folder: Path) -> None:
        sharded(folder)
        where = {f"t{number}": file for number, file in enumerate(files)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))

    return change


def adapter(base: str, **config: Any) -> Change:
    def change(folder: Path) -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]} | config
        settings["base_model_name_or_path"] = base
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        module = "base_model.model.model.layers.0.self_attn.q_proj"
        parts = {"lora_A": np.ones((4, 32), np.float32), "lora_B": np.ones((32, 4), np.float32)}
        tensors = {f"{module}.{name}.weight": part for name, part in parts.items()}
        save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "README.md").write_text(CARD)

    return change


def cut(folder: Path, length: int) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:length])


def not_numbers(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][:] = np.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def template(text: str) -> Change:
    return write("chat_template.jinja", text)


def nothing(folder: Path) -> None:
    """It stays as it is."""


def quantised(method: str, **section: Any) -> Change:
    return edit("config.json", quantization_config={"quant_method": method, **section})


K = FailureKind
CHAT = {"chat_template": True}
LORA = {"weight_type": "adapter"}
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}"

REPOSITORIES = (
    # Good
    Made("acme/plain", nothing),
    Made("acme/sharded", sharded),
    Made("acme/chat", edit("tokenizer_config.json", chat_template=CHAT_TEMPLATE), asked=CHAT),
    Made("acme/chat-file", template(CHAT_TEMPLATE), asked=CHAT),
    Made(
        "acme/chat-list",
        edit("tokenizer_config.json", chat_template=[{"name": "default", "template": CHAT_TEMPLATE}]),
        asked=CHAT,
    ),
    Made("acme/bfloat16", stored("BF16", torch_dtype="bfloat16", dtype="bfloat16")),
    Made("acme/unasked-template", template("{% broken")),
    Made("acme/with-python", all_of(edit("config.json", auto_map={"AutoModel": "m.M"}), write("m.py", "raise Exit"))),
    Made("acme/with-pickle", write("pytorch_model.bin", b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")),
    Made("acme/adapter", adapter("acme/plain"), asked=LORA),
    Made("acme/adapter-on-old-name", adapter("acme/old-plain"), asked=LORA),
    Made("acme/licence-of-its-own", write("README.md", CARD.replace(
        "license: apache-2.0", "license: other\nlicense_name: acme-1\nlicense_link: https://acme.example/licence"
    ))),
    # Odd
    Made("acme/mixture", edit("config.json", architectures=["MixtralForCausalLM"], model_type="mixtral",
                              num_local_experts=4, num_experts_per_tok=2)),
    Made("acme/sees", edit("config.json", architectures=["LlavaForConditionalGeneration"])),
    Made("acme/gptq", quantised("gptq", bits=4, sym=True, group_size=128)),
    Made("acme/awq", quantised("awq", bits=4, group_size=128)),
    Made("acme/fp8", all_of(stored("F8_E4M3"), quantised("fp8", weight_block_size=[128, 128]))),
    Made("acme/compressed", quantised("compressed-tensors", format="int-quantized", config_groups={})),
    Made("acme/not-numbers", not_numbers),
    Made("acme/never-ends", edit("generation_config.json", eos_token_id=600_000), ends="finished"),
    Made("acme/odd-paths", write(f"{MARKUP}/=cmd.txt", MARKUP)),
    Made("acme/markup-in-config", edit("config.json", architectures=["LlamaForCausalLM", MARKUP], name=MARKUP)),
    Made("acme/infinite", write("extra.json", '{"a": Infinity}')),
    # Refused: what it is
    Made("acme/masked", edit("config.json", architectures=["BertForMaskedLM"]), K.ARCHITECTURE, "does not generate"),
    Made("acme/headless", edit("config.json", architectures=["LlamaModel"]), K.ARCHITECTURE, "does not generate"),
    Made("acme/unknown", edit("config.json", architectures=["NovelForCausalLM"]), K.ARCHITECTURE, "does not know"),
    Made("acme/dropped", edit("config.json", architectures=["MPTForCausalLM"]), K.ARCHITECTURE,
         "0.28.0 was its last version that did"),
    Made("acme/needs-python", edit("config.json", model_type="novel", auto_map={"AutoModelForCausalLM": "m.M"}),
         K.REMOTE_CODE, "runs no code of a model"),
    Made("acme/tokenizer-needs-python", all_of(
        without("tokenizer.json"), edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["t.T", None]})
    ), K.REMOTE_CODE, "only loads with the repository's own Python code"),
    Made("acme/no-tokenizer", without("tokenizer.json"), K.TOKENIZER, "has no tokenizer files"),
    Made("acme/empty", emptied, K.CONFIG, "has no config.json"),
    Made("acme/deep", write("config.json", "[" * 100_000), K.CONFIG, "is not valid JSON"),
    Made("acme/huge-config", write("config.json", b"{" + b" " * (17 << 20) + b"}"), K.CONFIG, "larger than 16 MiB"),
    Made("acme/gguf", all_of(emptied, write("model.Q4_K_M.gguf", b"GGUF")), K.CONFIG, "GGUF files only"),
    # Refused: its weights
    Made("acme/pickled", lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
         K.WEIGHTS, "pickle files (.bin) only"),
    Made("acme/no-weights", without("model.safetensors"), K.WEIGHTS, "has no safetensors weights"),
    Made("acme/shard-missing", index_of("model-00001-of-00002.safetensors", "gone.safetensors"), K.WEIGHTS,
         "lacks weights that its index names: gone.safetensors"),
    Made("acme/index-outside", index_of("../../etc/passwd"), K.WEIGHTS, "outside the model's folder"),
    Made("acme/cut-header", lambda folder: cut(folder, 40), K.WEIGHTS, "or is cut off"),
    Made("acme/cut-weights", lambda folder: cut(folder, 9000), K.WEIGHTS, "bytes where its header says"),
    Made("acme/endless-header", write("model.safetensors", b"\xff" * 64), K.WEIGHTS, "not a safetensors file"),
    Made("acme/lying-header", write("model.safetensors", (100).to_bytes(8, "little") + json.dumps(
        {"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4]}}).encode().ljust(100) + b"1234"),
         K.WEIGHTS, "damaged safetensors header"),
    Made("acme/whole-numbers", stored("I64"), K.WEIGHTS, "stored as I64, which no floating-point model is"),
    Made("acme/bare-fp8", stored("F8_E4M3"), K.WEIGHTS, "has no quantization_config"),
    Made("acme/enormous", stored("BF16", elements=70 << 30, num_attention_heads=32, num_key_value_heads=8),
         K.OUT_OF_MEMORY, "needs 2 × 80 GB, the cluster's largest worker has 1 × 80 GB"),
    Made("acme/quantised-otherwise", quantised("aqlm"), K.PRECISION, "quantised with aqlm", field="precision"),
    Made("acme/overflows", stored("BF16"), K.PRECISION, "float16 cannot hold", field="precision",
         asked={"precision": "float16"}),
    # Refused: its chat template
    Made("acme/no-template", nothing, K.CHAT_TEMPLATE, "has no chat template", field="chat_template", asked=CHAT),
    Made("acme/template-without-default", edit("tokenizer_config.json", chat_template=[
        {"name": "tool_use", "template": CHAT_TEMPLATE}
    ]), K.CHAT_TEMPLATE, "none called 'default'", field="chat_template", asked=CHAT),
    Made("acme/looping-template", template(LOOP), K.CHAT_TEMPLATE, "chat template", field="chat_template", asked=CHAT),
    Made("acme/recursive-template", template("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), K.CHAT_TEMPLATE,
         "RecursionError", field="chat_template", asked=CHAT),
    Made("acme/reaching-template", template("{{ ''.__class__.__mro__[1].__subclasses__() }}"), K.CHAT_TEMPLATE,
         "unsafe", field="chat_template", asked=CHAT),
    Made("acme/deaf-template", template("Hello."), K.CHAT_TEMPLATE, "the last question is missing",
         field="chat_template", asked=CHAT),
    # Refused: adapters
    Made("acme/adapter-without-base", adapter("acme/nowhere"), None, "There is no model acme/nowhere",
         field="base_model", asked=LORA),
    Made("acme/adapter-on-a-path", adapter("../../etc"), None, "which is no Hub id", field="base_model", asked=LORA),
    Made("acme/adapter-of-patterns", adapter("acme/plain", rank_pattern={"(a+)+$": 4}), K.ARCHITECTURE,
         "not by their names", field="weight_type", asked=LORA),
    Made("acme/adapter-as-model", adapter("acme/plain"), None, "Submit it with weight type", field="weight_type"),
    # Refused: by who may read it, and this site's rules
    Made("acme/gated", nothing, K.GATED, "is gated"),
    Made("acme/private", nothing, None, "There is no model acme/private on the Hub that you may"),
    Made("acme/not-there", lambda folder: shutil.rmtree(folder), None, "There is no model acme/not-there"),
    Made("acme/no-card", without("README.md"), None, "is missing or empty"),
    Made("acme/short-card", write("README.md", "---\nlicense: mit\n---\nHello."), None, "has 6 characters, and 200"),
    Made("acme/no-licence", write("README.md", CARD.replace("license: apache-2.0", "")), None, "names no licence"),
    Made("Acme/Denied", nothing, None, "is not evaluated here"),
)  # fmt: skip


def fill(hub: HubStub, tiny: Path, folder: Path) -> None:
    """Make all of them and let the Hub have them."""
    for made in REPOSITORIES:
        own = folder / made.name.replace("/", "--")
        shutil.copytree(tiny, own)
        (own / "README.md").write_text(CARD)
        made.change(own)
        if own.is_dir():
            hub.add(made.name, own)
    hub.gated.add("acme/gated")
    hub.private.add("acme/private")
    hub.renamed["acme/old-plain"] = "acme/plain"
