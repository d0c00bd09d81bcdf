"""From sheets to what this attempt feeds: the open requests of its slice, in groups that share a context.

Sheets are read as the engine takes from them, a window of lines ahead, so memory does not grow with a sheet. Benchmarks
keep their order and groups the order of their first request, so that few-shot prefixes meet in the cache. Sheets of
generations are fed beside the others: their long decoding then rides along with the scoring of prompts.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from workers.sheets import Generate, Loglikelihood, Request, read_lines

SHORT_CONTEXT = 8
"""Contexts of fewer tokens (a prefix token, a rolling window's first) are no reason to keep requests together."""

MAX_GROUP = 256
"""A larger group is fed in parts."""

WINDOW = 4096
"""Requests that are read ahead of the engine, in which those of one context find each other."""

_requests = msgspec.json.Decoder(Request)


class _Id(msgspec.Struct):
    id: str


_ids = msgspec.json.Decoder(_Id)


def request_ids(sheet: Path, *, slice_index: int = 0, slice_count: int = 1) -> Iterator[str]:
    """The hashes of the requests of a slice of a sheet; of the whole sheet without decoding their tokens."""
    if slice_count == 1:
        return (_ids.decode(line).id for line in _lines(sheet))
    requests = map(_requests.decode, _lines(sheet))
    return (one.id for one in requests if in_slice(group_key(one), index=slice_index, count=slice_count))


def group_key(request: Request) -> bytes:
    """Equal for requests that share a context worth sharing; decides the slice, so it must never change."""
    ids = request.context if isinstance(request, Loglikelihood) else request.prompt
    if len(ids) < SHORT_CONTEXT:
        return bytes.fromhex(request.id)[:8]
    return hashlib.sha256(array("I", ids).tobytes()).digest()[:8]


def in_slice(key: bytes, *, index: int, count: int) -> bool:
    """Whether the slice `index` of `count` answers the group; every group is in exactly one."""
    return int.from_bytes(key, "little") % count == index


def open_groups(
    sheets: Sequence[Path],
    is_open: Callable[[str], bool],
    *,
    slice_index: int = 0,
    slice_count: int = 1,
    wants_generations: Callable[[], bool] = lambda: True,
    take: Callable[[str], bool] | None = None,
) -> Iterator[list[Request]]:
    """Groups of distinct requests that are open, of one slice.

    `take` notes that a request is taken and says whether it was not before; without it a set is kept here, which grows
    with the sheets.
    `wants_generations` is asked before each group: while it is true and a sheet of generations is left, the next group
    comes from there, otherwise from the other sheets; when one kind has run out the other follows.
    """
    take = take or _taking()

    def read(chosen: Sequence[Path]) -> Iterator[list[Request]]:
        for sheet in chosen:
            yield from _groups(sheet, is_open, take, slice_index=slice_index, slice_count=slice_count)

    generating = [sheet for sheet in sheets if _generates(sheet)]
    generations = read(generating)
    scorings = read([sheet for sheet in sheets if sheet not in generating])
    while True:
        wanted, other = (generations, scorings) if wants_generations() else (scorings, generations)
        group = next(wanted, None) or next(other, None)
        if group is None:
            return
        yield group


def first_groups(
    sheets: Sequence[Path],
    is_open: Callable[[str], bool],
    *,
    slice_index: int = 0,
    slice_count: int = 1,
    take: Callable[[str], bool],
) -> Iterator[list[Request]]:
    """The first open requests of each sheet that share a context: a sample of every benchmark, before the long run.

    No more is read of a sheet than that, and nothing else is taken.
    """
    for sheet in sheets:
        group: list[Request] = []
        key = b""
        for line in _lines(sheet):
            request = _requests.decode(line)
            own = group_key(request)
            if not in_slice(own, index=slice_index, count=slice_count) or not is_open(request.id):
                continue
            key = key or own
            if own != key or len(group) == MAX_GROUP:
                break
            if take(request.id):
                group.append(request)
        if group:
            yield group


def _taking() -> Callable[[str], bool]:
    taken: set[str] = set()

    def take(request: str) -> bool:
        before = len(taken)
        taken.add(request)
        return len(taken) > before

    return take


def _generates(sheet: Path) -> bool:
    """Whether the sheet's requests are generations, by its first one: few benchmarks have both kinds."""
    return any(isinstance(_requests.decode(line), Generate) for line in islice(_lines(sheet), 1))


def _groups(
    sheet: Path, is_open: Callable[[str], bool], take: Callable[[str], bool], *, slice_index: int, slice_count: int
) -> Iterator[list[Request]]:
    """One sheet's groups. Requests that share a context stand close together in a sheet; the window is far wider."""
    groups: OrderedDict[bytes, list[bytes]] = OrderedDict()
    waiting = 0
    for line in _lines(sheet):
        request = _requests.decode(line)
        if not is_open(request.id):
            continue
        key = group_key(request)
        if in_slice(key, index=slice_index, count=slice_count) and take(request.id):
            groups.setdefault(key, []).append(line)
            waiting += 1
        while waiting > WINDOW:
            lines = groups.popitem(last=False)[1]
            waiting -= len(lines)
            yield from _parts(lines)
    for lines in groups.values():
        yield from _parts(lines)


def _parts(lines: list[bytes]) -> Iterator[list[Request]]:
    for start in range(0, len(lines), MAX_GROUP):
        yield [_requests.decode(line) for line in lines[start : start + MAX_GROUP]]


def _lines(sheet: Path) -> Iterator[bytes]:
    return read_lines(sheet / "requests.jsonl.zst")
