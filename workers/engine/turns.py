"""The two turns in which an engine is fed: what it may hold together, and what it gets with nothing else in it."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from orchestrator.wire import InferWork
from workers.engine.ledger import Ledger
from workers.engine.selection import first_groups, open_groups
from workers.sheets import Request


def turns(
    work: InferWork, sheets: dict[str, Path], ledger: Ledger, wants_generations: Callable[[], bool]
) -> tuple["Turn", "Turn"]:
    """What is fed together, and what is fed after it, each group alone. What is set aside is in neither.

    Where nothing is answered yet, the first sample of every benchmark goes before all else.
    """
    aside = frozenset(request for one in work.set_aside for request in one.requests)
    alone = frozenset(work.alone) - aside
    last = frozenset(work.last) - aside - alone
    held = aside | alone | last

    def groups(wanted: Callable[[str], bool]) -> Iterator[list[Request]]:
        return open_groups(
            list(sheets.values()),
            lambda request: ledger.is_open(request) and wanted(request),
            slice_index=work.slice_index,
            slice_count=work.slice_count,
            wants_generations=wants_generations,
            take=ledger.take,
        )

    crowd = groups(lambda request: request not in held)
    if not ledger.sealed:
        # A model that computes no numbers, or text where choices are due, then fails within the first minute.
        samples = first_groups(
            list(sheets.values()),
            lambda request: ledger.is_open(request) and request not in held,
            slice_index=work.slice_index,
            slice_count=work.slice_count,
            take=ledger.take,
        )
        crowd = chain(samples, crowd)
    if last:
        crowd = chain(crowd, groups(lambda request: request in last))
    return Turn(crowd), Turn(groups(lambda request: request in alone) if alone else iter(()))


class Turn(Iterator[list[Request]]):
    """Groups on their way to the engine, whether there are any, and how many requests they held."""

    def __init__(self, groups: Iterator[list[Request]]) -> None:
        self._groups = groups
        self._first = next(groups, None)
        self.empty = self._first is None
        self.requests = 0

    def __next__(self) -> list[Request]:
        group = self._first or next(self._groups)
        self._first = None
        self.requests += len(group)
        return group
