"""From sheets to what this attempt feeds: the open requests of its slice, in groups that share a context.

One sheet is held in memory at a time, as the bytes it was read as; token ids are decoded when their turn comes.
Benchmarks keep their order and groups the order of their first request, so that few-shot prefixes meet in the cache.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from workers.sheets import Loglikelihood, Request, read_lines

SHORT_CONTEXT = 8
"""Contexts of fewer tokens (a prefix token, a rolling window's first) are no reason to keep requests together."""

MAX_GROUP = 256
"""A larger group is fed in parts."""

_requests = msgspec.json.Decoder(Request)


class _Id(msgspec.Struct):
    id: str


_ids = msgspec.json.Decoder(_Id)


def request_ids(sheet: Path) -> Iterator[str]:
    """The hashes of a sheet's requests, without decoding their tokens."""
    return (_ids.decode(line).id for line in read_lines(sheet / "requests.jsonl.zst"))


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
    sheets: Sequence[Path], is_open: Callable[[str], bool], *, slice_index: int = 0, slice_count: int = 1
) -> Iterator[list[Request]]:
    """Groups of distinct requests that are open, of one slice, sheet after sheet."""
    taken: set[str] = set()
    for sheet in sheets:
        groups: dict[bytes, list[bytes]] = {}
        for line in read_lines(sheet / "requests.jsonl.zst"):
            request = _requests.decode(line)
            if request.id in taken or not is_open(request.id):
                continue
            key = group_key(request)
            if in_slice(key, index=slice_index, count=slice_count):
                taken.add(request.id)
                groups.setdefault(key, []).append(line)
        for lines in groups.values():
            for start in range(0, len(lines), MAX_GROUP):
                yield [_requests.decode(line) for line in lines[start : start + MAX_GROUP]]
