"""Finds the responses a sheet needs in sealed segments, by hash; the first in name order counts.

A damaged segment is set aside with a warning: what it alone held is missing then, and that is an error, never a zero.
"""

import hashlib
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.wire import FailureKind
from workers import segments, stage
from workers.stage import StageFailure

log = logging.getLogger(__name__)


@dataclass
class Responses:
    found: dict[str, segments.Response] = field(default_factory=dict)
    used: list[dict[str, Any]] = field(default_factory=list)
    """Segments that gave at least one response: name, sha256, attempt and how many, in name order."""
    engines: list[dict[str, Any]] = field(default_factory=list)
    """Distinct engines, with their settings, behind the used segments."""
    set_aside: list[str] = field(default_factory=list)

    def scored(self, identifier: str) -> segments.Scored:
        response = self.found[identifier]
        if not isinstance(response, segments.Scored):
            raise _wrong_kind(identifier)
        return response

    def generated(self, identifier: str) -> segments.Generated:
        response = self.found[identifier]
        if not isinstance(response, segments.Generated):
            raise _wrong_kind(identifier)
        return response


def collect(paths: Iterable[str], needed: set[str], *, identity: str) -> Responses:
    """Responses to the needed requests that a model of this identity digest gave.

    Raises:
        StageFailure: some are missing; the sentence says how many. STORAGE where a segment could not be read at all.
    """
    responses = Responses()
    unreadable = None
    for path in map(Path, paths):
        try:
            header, records = segments.read(path)
        except (segments.DamagedSegment, OSError, ValueError, msgspec.MsgspecError) as error:
            unreadable = unreadable or stage.disk_trouble(error)
            log.warning("Segment %s is set aside: %s", path.name, error)
            responses.set_aside.append(path.name)
            continue
        if header.identity != identity:
            log.warning("Segment %s is set aside: another model identity answered it.", path.name)
            responses.set_aside.append(path.name)
            continue
        fresh = [record for record in records if record.id in needed and record.id not in responses.found]
        for record in fresh:
            responses.found.setdefault(record.id, record)
        if fresh:
            _note(responses, path, header, len(fresh))
    missing = needed - responses.found.keys()
    if missing and unreadable is not None:
        raise unreadable
    if missing:
        aside = f" {len(responses.set_aside)} segments were set aside." if responses.set_aside else ""
        raise StageFailure(
            FailureKind.RESPONSES,
            f"{len(missing)} of {len(needed)} responses are missing.{aside} Run inference for this sheet again, "
            f"then score.",
        )
    return responses


def refuse_not_finite(responses: Responses) -> None:
    """Refuse answers that are no numbers.

    Raises:
        StageFailure: INVALID_OUTPUT with the count.
    """
    bad = sum(
        1
        for response in responses.found.values()
        if isinstance(response, segments.Scored) and not math.isfinite(response.logprob)
    )
    if bad:
        raise StageFailure(
            FailureKind.INVALID_OUTPUT,
            f"{bad} of {len(responses.found)} answers are not finite numbers. The weights are broken, or do not fit "
            "into the precision: try bfloat16 or float32.",
        )


def _note(responses: Responses, path: Path, header: segments.Header, count: int) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    responses.used.append({"name": path.name, "sha256": digest, "attempt": header.attempt, "responses": count})
    engine = {**header.engine, "settings": header.settings}
    if engine not in responses.engines:
        responses.engines.append(engine)


def _wrong_kind(identifier: str) -> StageFailure:
    return StageFailure(
        FailureKind.HARNESS,
        f"The response to request {identifier} is of another kind than the request. Run inference for this sheet "
        f"again.",
    )
