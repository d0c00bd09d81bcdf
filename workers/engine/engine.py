"""What the infer stage asks of an engine, whichever computes: the one seam between feeding and computing.

An engine is fed groups and gives back responses one by one, in whatever order they finish. It never reads sheets,
writes segments or speaks to the supervisor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.wire import FailureKind
from workers.segments import Response
from workers.sheets import Request
from workers.stage import StageFailure


@dataclass(frozen=True)
class Need:
    """What is to be answered, as far as an engine sizes itself by it."""

    requests: int
    longest: int
    """Tokens of the longest request, generated ones included."""
    generates: bool = True
    """Whether any of it is text to generate, rather than scored."""

    def holds(self, other: "Need") -> bool:
        """Whether an engine that was sized for this serves the other as well."""
        return other.longest <= self.longest and (self.generates or not other.generates)


class Engine(Protocol):
    settings: dict[str, Any]
    """As used, whether derived or given; stored with each segment."""
    tokens_computed: int
    tokens_reused: int
    """Prompt tokens that another request's computation already held."""

    def start(self) -> None:
        """Load the weights; afterwards groups may be submitted.

        Raises:
            StageFailure: the model cannot run here, with its class.
        """
        ...

    def wants_more(self) -> bool:
        """Whether another group would keep it busy; false while it holds enough."""
        ...

    def wants_generations(self) -> bool:
        """Whether the next group should be generations: they take long, and must not starve the scoring beside them."""
        ...

    def submit(self, group: Sequence[Request]) -> None:
        """Take on requests that share their context (or prompt)."""
        ...

    def step(self) -> list[Response]:
        """Compute a little and return what finished, perhaps nothing."""
        ...

    def busy(self) -> bool:
        """Whether something submitted is still unanswered."""
        ...


def refuse_unknown_settings(settings: dict[str, Any], allowed: Sequence[str]) -> None:
    """Stop at a setting that no one would read."""
    for name in settings:
        if name not in allowed:
            raise StageFailure(
                FailureKind.ENGINE,
                f"The engine has no setting '{name}'. It has: {', '.join(sorted(allowed))}.",
            )
