"""Keeps an engine fed: the next group goes in as earlier requests finish, and answers go straight to the sealer.

There are no batches to drain. Whatever ends the loop, what finished before is sealed, and what the engine held then is
noted: it may be what killed it.
"""

from collections.abc import Callable, Iterator

from orchestrator.wire import FailureKind
from workers.engine.engine import Engine
from workers.engine.in_flight import InFlight
from workers.engine.sealer import Sealer
from workers.sheets import Generate, Request
from workers.stage import StageFailure


def feed(
    engine: Engine,
    groups: Iterator[list[Request]],
    sealer: Sealer,
    *,
    in_flight: InFlight,
    step_ended: Callable[[], None],
    stopping: Callable[[], bool],
    alone: bool = False,
) -> bool:
    """Answer all groups and seal the answers; returns False when it was asked to stop before the end.

    `alone` gives the engine one group at a time: if it dies, it died of that one.

    Raises:
        StageFailure: the engine or the model failed; finished answers are sealed before it is raised.
    """
    more = True
    try:
        while not stopping():
            while more and (not engine.busy() if alone else engine.wants_more()):
                group = next(groups, None)
                if group is None:
                    more = False
                else:
                    in_flight.add(request.id for request in group)
                    engine.submit(group)
            if not engine.busy():
                if more:
                    continue
                return True
            responses = engine.step()
            step_ended()
            in_flight.remove(response.id for response in responses)
            sealer.add(responses)
            sealer.tick()
        return False
    finally:
        sealer.flush()


def refuse_foreign_tokens(groups: Iterator[list[Request]], vocabulary: int | None) -> Iterator[list[Request]]:
    """Pass groups on, but stop before a token that the model's embeddings do not have: it would kill the engine."""
    for group in groups:
        if vocabulary is not None:
            for request in group:
                highest = max(_tokens(request), default=0)
                if highest >= vocabulary:
                    raise StageFailure(
                        FailureKind.TOKENIZER,
                        f"The tokenizer gives token {highest}, but the model has embeddings for {vocabulary} tokens "
                        "only. The repository's tokenizer and weights do not belong together.",
                    )
        yield group


def _tokens(request: Request) -> list[int]:
    return request.prompt if isinstance(request, Generate) else request.context + request.continuation
