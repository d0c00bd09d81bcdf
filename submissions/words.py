"""How the pages and the command line write numbers, sizes and times for people. Pure."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.words import count, duration, score, times

__all__ = ["count", "duration", "score", "times"]


def parameters(count: int | None) -> str:
    """`7.24 B`, `270 M`, `82 k`, or a dash."""
    if count is None:
        return "–"
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g} {name}" if count < 1000 * unit else f"{count / unit:,.0f} {name}"
    return str(count)


def revision(text: str) -> str:
    """The first seven digits of a commit or digest."""
    return text.removeprefix("sha256-")[:7]


def moment(at: datetime | None) -> str:
    """`2026-03-04 05:06 UTC`, or a dash."""
    return "–" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def ago(at: datetime | None, now: datetime) -> str:
    """`12 min ago`, or a dash."""
    if at is None:
        return "–"
    return "just now" if (now - at).total_seconds() < 5 else f"{duration((now - at).total_seconds())} ago"


def attempts(outcomes: Sequence[str]) -> str:
    """`3 attempts (1 expired, 1 released, 1 completed)`; an empty outcome is one that runs."""
    kinds = Counter(outcome or "running" for outcome in outcomes)
    return f"{count(len(outcomes), 'attempt')} ({', '.join(f'{many} {kind}' for kind, many in kinds.items())})"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def state(name: str, is_waiting: bool) -> str:
    """An evaluation's state as people see it: `waiting` where it has begun and no worker holds what comes next."""
    return "waiting" if is_waiting and name != "queued" else name


def job_state(name: str) -> str:
    """A job's state as people see it: why it waits, for a worker or for another job, is said elsewhere."""
    return "waiting" if name in ("blocked", "queued") else name


def event(name: str) -> str:
    """`job_requeued` as `Job requeued`."""
    return name.replace("_", " ").capitalize()


def shown(text: str, *, most: int = 80) -> str:
    """`text` fit for a sentence: printable, on one line, not longer than `most` characters."""
    clean = "".join(character if character.isprintable() else "�" for character in text)
    return clean if len(clean) <= most else clean[: most - 1] + "…"
