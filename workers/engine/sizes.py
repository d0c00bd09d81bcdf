"""How many of this host's GPUs one engine takes, or the sentence with which it refuses a model that they do not hold.

The arithmetic is `orchestrator.footprint`, which the hub knows too. Pure.
"""

from typing import Any

from orchestrator.footprint import GIB, USUAL_SHARE, fewest_devices, footprint, sharing
from orchestrator.wire import EngineInfo, FailureKind, Model
from workers.stage import StageFailure


def tensor_parallel_size(
    model: Model,
    config: dict[str, Any],
    *,
    info: EngineInfo,
    weight_bytes: int,
    context: int | None,
    share: float = USUAL_SHARE,
) -> int:
    """The fewest of the GPUs in `info` that hold the model; 1 where the devices' memory is not known.

    `context` is the engine's context length in tokens.

    Raises:
        StageFailure: the weights alone are larger than what the GPUs that may share them hold.
    """
    if info.device_type == "cpu" or not info.memory_bytes:
        return 1
    need = footprint(config, model.precision, weight_bytes)
    found = fewest_devices(need, memory_bytes=info.memory_bytes, count=info.device_count, context=context, share=share)
    if found is not None:
        return found
    most = sharing(need, info.device_count)[-1]
    held = f"{most} × {info.device}" if most > 1 else info.device
    more = "" if most == info.device_count else f" (no more of its {info.device_count} GPUs can share the heads)"
    raise StageFailure(
        FailureKind.OUT_OF_MEMORY,
        f"Model {model.name} has {need.weight_bytes / GIB:.0f} GiB of weights, more than {held} of "
        f"{info.memory_bytes / GIB:.0f} GiB holds beside the work{more}. It needs a worker with more or larger GPUs, "
        "or a smaller precision.",
        lasting=True,
    )
