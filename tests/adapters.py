"""Random LoRA adapters for a tiny model, as PEFT saves them, and the model with one merged in by hand."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

ATTENTION = ("q_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "down_proj")


def build_adapter(
    folder: Path,
    base: Path,
    *,
    modules: tuple[str, ...] = ATTENTION + MLP,
    rank: int = 4,
    base_name: str = "acme/base",
    **config: Any,
) -> Path:
    """An adapter that changes `modules` of the base enough to change its answers."""
    draw = np.random.default_rng(3)
    tensors: dict[str, np.ndarray] = {}
    for name, weight in load_file(base / "model.safetensors").items():
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] not in modules:
            continue
        rows, columns = weight.shape
        if module.endswith("embed_tokens"):
            rows, columns, parts = columns, rows, ("embedding_A", "embedding_B")
        else:
            parts = ("A.weight", "B.weight")
        for part, shape in zip(parts, ((rank, columns), (rows, rank)), strict=True):
            scale = 0.3 if part.startswith(("B", "embedding_B")) else 1 / np.sqrt(columns)
            tensors[f"base_model.model.{module}.lora_{part}"] = (draw.standard_normal(shape) * scale).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": list(modules),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    return folder


def merge(folder: Path, base: Path, adapter: Path) -> Path:
    """The base with the adapter's updates added to its weights: what the adapter must answer like."""
    shutil.copytree(base, folder)
    config = json.loads((adapter / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    halves = load_file(adapter / "adapter_model.safetensors")
    weights = load_file(base / "model.safetensors")
    for name, first in halves.items():
        module = name.removeprefix("base_model.model.").partition(".lora_")[0]
        if name.endswith("lora_A.weight"):
            weights[module + ".weight"] += scale * halves[name.replace("lora_A", "lora_B")] @ first
        elif name.endswith("lora_embedding_A"):
            weights[module + ".weight"] += scale * (halves[name.replace("_A", "_B")] @ first).T
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
