"""What is said of requests that were set aside: which documents of which benchmarks lack an answer, and why."""

from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from orchestrator.wire import SetAside, Unanswered
from workers.engine.ledger import Ledger
from workers.sheets import Instance, read_lines

_instances = msgspec.json.Decoder(Instance)


def unanswered(set_aside: Collection[SetAside], ledger: Ledger, sheets: Mapping[str, Path]) -> tuple[Unanswered, ...]:
    """The set-aside requests that are still open; another attempt or engine may have answered some."""
    found = []
    for aside in set_aside:
        requests = tuple(request for request in aside.requests if ledger.is_open(request))
        if not requests:
            continue
        benchmarks = tuple(dict.fromkeys(name for request in requests for name in ledger.waiting(request)))
        others = f" and {len(requests) - 1} more of the same context" if len(requests) > 1 else ""
        kills = "kill" if others else "kills"
        place = next(filter(None, (place_of(sheets[name], requests) for name in benchmarks)), "")
        sentence = (
            f"Request {requests[0]}{others}{place} {kills} the engine, among others and alone: {aside.cause} It is set "
            f"aside, so there is no score for {', '.join(benchmarks)}."
        )
        found.append(Unanswered(requests=requests, benchmarks=benchmarks, sentence=sentence))
    return tuple(found)


def place_of(sheet: Path, requests: Collection[str]) -> str:
    """Where a person finds the first of these requests: task and document; empty where the sheet does not tell."""
    path = sheet / "instances.jsonl.zst"
    if not path.is_file():
        return ""
    wanted = [request.encode() for request in requests]
    for line in read_lines(path):
        if any(request in line for request in wanted):
            instance = _instances.decode(line)
            return f" (task {instance.task}, document {instance.document})"
    return ""
