"""What is answered already: reads sealed segments and sets aside those that cannot be used, with a warning."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import zstandard

from workers import segments


def answered(paths: Iterable[Path], identity: str) -> Iterator[tuple[str, list[str]]]:
    """For each segment of this identity digest the attempt that wrote it and the hashes of what it answers.

    A segment that is damaged, missing or of another identity counts as absent: its requests are computed again.
    """
    for path in paths:
        try:
            header, responses = segments.read(path)
        except (segments.DamagedSegment, OSError, msgspec.DecodeError, zstandard.ZstdError) as error:
            _warn(f"Segment {path.name} is set aside and its requests are computed again: {error}")
            continue
        if header.identity != identity:
            _warn(f"Segment {path.name} is set aside: another model identity ({header.identity}) answered it.")
            continue
        yield header.attempt, [response.id for response in responses]


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr, flush=True)
