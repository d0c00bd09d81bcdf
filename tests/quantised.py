"""Quantised checkpoints of a tiny model, written by hand in the published layouts, and what they unpack to.

No quantiser is needed: rounding to the nearest is enough for weights that mean nothing. Needs torch, for FP8.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

GROUP, BLOCK = 32, 128

SCHEMES: dict[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True, "desc_act": False},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"},
    "int8": {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
                "input_activations": {
                    "num_bits": 8,
                    "type": "int",
                    "symmetric": True,
                    "strategy": "token",
                    "dynamic": True,
                },
            }
        },
    },
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]},
}

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class Pair(NamedTuple):
    quantised: Path
    unpacked: Path
    """The same numbers as float32 weights."""


def quantise(folder: Path, base: Path, scheme: str) -> Pair:
    """Write `base` with its projections quantised, and with what they unpack to. Its sides must be multiples of 128."""
    import torch
    from safetensors.torch import save_file as save_tensors

    packed: dict[str, Any] = {}
    plain: dict[str, np.ndarray] = {}
    for name, weight in load_file(base / "model.safetensors").items():
        parts, plain[name] = PACK[scheme](weight) if "_proj." in name else ({"weight": weight}, weight)
        module = name.removesuffix("weight")
        packed |= {module + part: torch.as_tensor(tensor).contiguous() for part, tensor in parts.items()}
    for made in (folder / "quantised", folder / "unpacked"):
        shutil.copytree(base, made)
    save_tensors(packed, folder / "quantised" / "model.safetensors", metadata={"format": "pt"})
    save_file(plain, folder / "unpacked" / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    config |= {"quantization_config": SCHEMES[scheme], "dtype": "bfloat16", "torch_dtype": "bfloat16"}
    (folder / "quantised" / "config.json").write_text(json.dumps(config))
    return Pair(folder / "quantised", folder / "unpacked")


def _gptq(weight: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    groups = _in_groups(weight)
    scales = (np.abs(groups).max(1) / 7).astype(np.float16)
    values, plain = _four_bits(groups, scales, np.full_like(scales, 8))
    order = (np.arange(weight.shape[1]) // GROUP).astype(np.int32)
    zeros = np.full(scales.shape, 7, dtype=np.uint32)  # the layout keeps zeros less one
    return {"qweight": _pack(values.T).T.copy(), "qzeros": _pack(zeros), "scales": scales, "g_idx": order}, plain


def _awq(weight: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    groups = _in_groups(weight)
    low, high = groups.min(1), groups.max(1)
    scales = ((high - low) / 15).astype(np.float16)
    zeros = np.clip(np.round(-low / scales), 0, 15).astype(np.float32)
    values, plain = _four_bits(groups, scales, zeros)
    packed = {"qweight": _pack(values, AWQ_ORDER), "qzeros": _pack(zeros.astype(np.uint32), AWQ_ORDER)}
    return packed | {"scales": scales}, plain


def _int8(weight: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    scales = (np.abs(weight).max(1, keepdims=True) / 127).astype(np.float32)
    values = np.round(weight / scales).astype(np.int8)
    return {"weight": values, "weight_scale": scales}, (values * scales).astype(np.float32)


def _fp8(weight: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    import torch

    rows, columns = weight.shape[0] // BLOCK, weight.shape[1] // BLOCK
    scales = (np.abs(weight.reshape(rows, BLOCK, columns, BLOCK)).max((1, 3)) / 448).astype(np.float32)
    spread = scales.repeat(BLOCK, 0).repeat(BLOCK, 1)
    values = torch.from_numpy(weight / spread).to(torch.float8_e4m3fn)
    return {"weight": values, "weight_scale_inv": scales}, values.float().numpy() * spread


PACK = {"gptq": _gptq, "awq": _awq, "int8": _int8, "fp8": _fp8}


def _in_groups(weight: np.ndarray) -> np.ndarray:
    return weight.T.reshape(weight.shape[1] // GROUP, GROUP, weight.shape[0])


def _four_bits(groups: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of 0 to 15 as (inputs, outputs), and the weight that they stand for."""
    scale, zero = scales[:, None].astype(np.float32), zeros[:, None].astype(np.float32)
    values = np.clip(np.round(groups / scale) + zero, 0, 15)
    rows, columns = groups.shape[0] * GROUP, groups.shape[2]
    return values.reshape(rows, columns).astype(np.uint32), ((values - zero) * scale).reshape(rows, columns).T.copy()


def _pack(values: np.ndarray, order: tuple[int, ...] = tuple(range(8))) -> np.ndarray:
    """Eight values of four bits in each integer, along the last axis."""
    eights = values.reshape(*values.shape[:-1], -1, 8)
    packed = np.zeros(eights.shape[:-1], dtype=np.uint32)
    for position, source in enumerate(order):
        packed |= eights[..., source] << np.uint32(4 * position)
    return packed.view(np.int32)
