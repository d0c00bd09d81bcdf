"""Turns finished responses into sealed segments, and says so. What it has announced survives any crash.

It refuses answers that are no numbers: a NaN from a broken model must never become a score.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.wire import FailureKind, Spent
from workers.engine.ledger import Ledger
from workers.segments import Header, Response, Scored, seal
from workers.stage import StageFailure, emit

MOST_UNSEALED = 20_000
"""Responses that wait in memory at most; more are sealed before their time."""


class Sealer:
    def __init__(
        self,
        folder: Path,
        header: Header,
        ledger: Ledger,
        *,
        seconds: float,
        now: Callable[[], float],
        spent: Callable[[], Spent] = Spent,
    ) -> None:
        """`spent` says what answering has used so far: a seal is told with it, for nobody can ask a dead engine."""
        self._folder = folder
        self._header = header
        self._ledger = ledger
        self._seconds = seconds
        self._now = now
        self._spent = spent
        self._waiting: list[Response] = []
        self._due = now() + seconds
        self._number = 1 + max((int(path.name[:6]) for path in segment_files(folder)), default=0)
        self.count = 0

    def add(self, responses: Iterable[Response]) -> None:
        """Take responses over; they are sealed by the next `tick` that is due.

        Raises:
            StageFailure: one of them is not a finite number. Those before it are kept.
        """
        for response in responses:
            if isinstance(response, Scored) and not math.isfinite(response.logprob):
                raise StageFailure(
                    FailureKind.INVALID_OUTPUT,
                    f"The model answered request {response.id} with a log-likelihood of {response.logprob}. Its "
                    "weights are broken, or overflow at this precision: check them, or submit it as float32.",
                )
            self._waiting.append(response)

    def tick(self) -> None:
        """Seal when it is time."""
        if self._now() >= self._due or len(self._waiting) >= MOST_UNSEALED:
            self.flush()

    def flush(self) -> None:
        """Seal whatever waits, now."""
        self._due = self._now() + self._seconds
        if not self._waiting:
            return
        path = seal(self._folder, self._number, self._header, self._waiting)
        self._number += 1
        count = self._ledger.seal(response.id for response in self._waiting)
        self.count += len(self._waiting)
        self._waiting.clear()
        spent = self._spent().model_dump()
        emit("sealed", file=path.name, count=count, benchmarks_done=self._ledger.benchmarks_done, spent=spent)
        emit("progress", done=self._ledger.sealed, total=self._ledger.total)


def segment_files(folder: Path) -> list[Path]:
    """Sealed segments in a folder, in name order; temporary files are not among them."""
    return sorted(folder.glob("[0-9]*.jsonl.zst"))
