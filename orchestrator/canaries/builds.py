"""What an engine worker computes with, as far as it may change answers: its build. Pure.

A verdict belongs to a build and not to a worker, so that ten equal hosts ask for one run. Whatever a worker of an
earlier release does not say is empty, and so it is another build once it does.
"""

import hashlib
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from orchestrator.wire import EngineInfo, canonical_json


class Entry(StrEnum):
    """Whether a worker may be given evaluations' work."""

    OPEN = ""
    WAITS = "waits"  # its build has no verdict yet
    FAILED = "failed"  # the canary could not be computed on it, and is tried again
    KEPT_OUT = "kept out"  # its answers drifted beyond a bound


@dataclass(frozen=True)
class Build:
    family: str
    version: str
    device_type: str
    device: str
    driver: str = ""
    runtime: str = ""
    settings: str = ""
    """Digest of the engine settings that the worker's operator gave it; empty for none."""

    @property
    def digest(self) -> str:
        """What operators call it: 12 hexadecimal digits."""
        return hashlib.sha256(canonical_json(asdict(self))).hexdigest()[:12]

    @property
    def facts(self) -> dict[str, Any]:
        """As it is kept in a row."""
        return asdict(self)


def build_of(engine: EngineInfo, *, settings: str = "") -> Build:
    """The build of a worker that says this of its engine."""
    return Build(
        family=engine.family.value,
        version=engine.version,
        device_type=engine.device_type,
        device=engine.device,
        driver=engine.driver,
        runtime=engine.runtime,
        settings=settings,
    )


def engine_name(facts: dict[str, Any]) -> str:
    """`vllm 0.33.0`."""
    return f"{facts.get('family', '')} {facts.get('version', '')}".strip()


def in_words(facts: dict[str, Any]) -> str:
    """`vllm 0.33.0 with torch 2.13.0, NVIDIA H100, driver 570.86.15`."""
    runtime, driver, settings = (str(facts.get(name) or "") for name in ("runtime", "driver", "settings"))
    parts = [
        engine_name(facts) + (f" with {runtime}" if runtime else ""),
        str(facts.get("device") or ""),
        f"driver {driver}" if driver else "",
        f"settings {settings}" if settings else "",
    ]
    return ", ".join(part for part in parts if part)


def why_kept(entry: Entry, engine: str) -> str:
    """Why a worker with this engine takes nothing but the canary; empty where it may work. Everybody reads it."""
    match entry:
        case Entry.WAITS:
            return f"waits for the canary ({engine})"
        case Entry.FAILED:
            return f"waits for the canary ({engine}), which could not be computed here and is tried again"
        case Entry.KEPT_OUT:
            return f"kept out by the canary ({engine}): its answers differ too much from the stored ones"
    return ""
