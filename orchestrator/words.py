"""How sentences for people say numbers: times, sizes, and how many of what. Pure; hub, workers and pages all use it."""

from datetime import timedelta

from orchestrator.footprint import GIB


def duration(time: float | timedelta) -> str:
    """Seconds as `42 s`, `12 min`, `3.5 h`, `25 h`, `4 days`."""
    seconds = max(0.0, time.total_seconds() if isinstance(time, timedelta) else time)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.2g} h"
    return f"{seconds / 86400:.0f} days"


def size(number: int) -> str:
    """Bytes as disks and drivers count them: `0.5 MB`, `350 MB`, `2.5 GB`, `31 GB`."""
    unit, name = (10**9, "GB") if number >= 10**9 else (10**6, "MB")
    digits = 1 if number < 10 * unit else 0
    return f"{number / unit:.{digits}f}".removesuffix(".0") + f" {name}"


def gpu_memory(number: int) -> str:
    """Bytes as GPUs are sold: a card of 81,559 MiB is one of 80 GB."""
    return f"{round(number / GIB)} GB"


def count(number: int, noun: str) -> str:
    """`1 attempt`, `2 attempts`, `12,345 tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def agree(number: int, one: str, many: str) -> str:
    """The verb that goes with so many: `is` or `are`."""
    return one if number == 1 else many


def score(value: float | None) -> str:
    """Two decimals, or a dash."""
    return "–" if value is None else f"{value:.2f}"


def times(number: int) -> str:
    """`once`, `twice`, `3 times`."""
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")
