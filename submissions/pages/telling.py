"""Times, lengths of time and names of events, in the reader's language."""

from datetime import datetime, timedelta

from orchestrator.words import duration as in_english
from submissions import words
from submissions.languages import N_, gettext

UNITS = {"s": N_("{number} s"), "min": N_("{number} min"), "h": N_("{number} h"), "days": N_("{number} days")}


def duration(time: float | timedelta) -> str:
    """`42 s`, `12 min`, `3.5 h`, `4 days`."""
    number, _, unit = in_english(time).partition(" ")
    return gettext(UNITS[unit]).format(number=number)


def ago(at: datetime | None, now: datetime) -> str:
    """`12 min ago`, or a dash."""
    if at is None:
        return "–"
    passed = (now - at).total_seconds()
    return gettext("just now") if passed < 5 else gettext("{time} ago").format(time=duration(passed))


def event(name: str) -> str:
    """`job_requeued` as `Job requeued`."""
    return gettext(words.event(name))
