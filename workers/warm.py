"""A warm engine: an infer program that has ended its work well and waits for the next, with its model loaded.

It holds its devices meanwhile. It takes no work but what it would have been started for in the same way, so that a
warm engine and a cold one give the same answers. The engine itself has the last word on that, and ends unheard where
the work is none for it.
"""

import threading
from dataclasses import dataclass, field

from orchestrator.wire import InferWork, canonical_json
from workers.child import Child


@dataclass(eq=False)
class WarmEngine:
    child: Child
    key: str
    """`engine_key` of what it was started for."""
    weights: str
    """Commit of its model."""
    closing: bool = False
    """It is being ended: its devices are free when its process is gone."""
    timer: threading.Timer | None = field(default=None, repr=False)

    def close(self) -> bool:
        """End it; it has nothing to seal. Whether its processes are gone."""
        return self.child.kill()


def engine_key(work: InferWork, devices: int) -> str:
    """Equal for works that one and the same engine may answer, as far as their orders tell: not whether the longest
    request fits.
    """
    asked = {"identity": work.identity, "engine": work.engine, "settings": work.settings, "devices": devices}
    return canonical_json(asked).decode()
