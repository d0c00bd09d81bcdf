"""When a host may be used: `Mon-Fri 20:00-07:00; Sat,Sun 00:00-24:00`, by the clock on the wall of its time zone.

Pure: it reads no clock. Where the clock is set forward or back within a window, of two readings of a time the later
opens and the earlier closes, so that a window is never open when one of the readings says that it is closed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EXAMPLE = "Write windows as 'Mon-Fri 20:00-07:00; Sat,Sun 00:00-24:00'"
HORIZON_DAYS = 9
"""Days looked ahead: every window comes again within a week."""

_WINDOW = re.compile(r"(?:(?P<days>[A-Za-z, -]+?)\s+)?(?P<start>\d{1,2}:\d{2})\s*-\s*(?P<end>\d{1,2}:\d{2})")

Interval = tuple[datetime, datetime]


class WindowError(ValueError):
    """A window that cannot be read, with what is wrong and how to write it."""


@dataclass(frozen=True)
class Window:
    """One window, on the days of the week it begins on (0 is Monday); it may end on the next day."""

    days: frozenset[int]
    start: time
    end: time | None
    """None is 24:00."""

    def on(self, day: date, zone: tzinfo) -> Interval | None:
        """When it is open, of the window that begins on this day, in UTC; None where it is not open at all."""
        if day.weekday() not in self.days:
            return None
        end = self.end or time()
        last = day if self.end is not None and self.end > self.start else day + timedelta(days=1)
        opens, closes = max(_readings(day, self.start, zone)), min(_readings(last, end, zone))
        return (opens, closes) if opens < closes else None


@dataclass(frozen=True)
class Windows:
    """Times at which a host may be used; none of them means always."""

    text: str
    windows: tuple[Window, ...]
    zone: tzinfo

    def is_open(self, now: datetime) -> bool:
        return not self.windows or any(opens <= now < closes for opens, closes in self._intervals(now))

    def closes_at(self, now: datetime) -> datetime | None:
        """The end of the window that is open now; None when none is, or when it does not end within a week."""
        closing = next((closes for opens, closes in self._intervals(now) if opens <= now < closes), None)
        return None if closing is None or closing - now > timedelta(days=7) else closing

    def opens_at(self, now: datetime) -> datetime | None:
        """When the next window opens; None while one is open."""
        if self.is_open(now):
            return None
        return next((opens for opens, _ in self._intervals(now) if opens > now), None)

    def local(self, when: datetime) -> str:
        """A time as operators read it here: `Mon 20:00`."""
        there = when.astimezone(self.zone)
        return f"{DAYS[there.weekday()]} {there:%H:%M}"

    def _intervals(self, now: datetime) -> Iterator[Interval]:
        """What is open around now and after it, in order; those that touch are one."""
        today = now.astimezone(self.zone).date()
        days = [today + timedelta(days=offset) for offset in range(-2, HORIZON_DAYS)]
        found = sorted(
            interval for day in days for window in self.windows if (interval := window.on(day, self.zone)) is not None
        )
        current: Interval | None = None
        for opens, closes in found:
            if current is not None and opens <= current[1]:
                current = (current[0], max(current[1], closes))
                continue
            if current is not None:
                yield current
            current = (opens, closes)
        if current is not None:
            yield current


ALWAYS = Windows("", (), UTC)


def read_windows(text: str, zone: tzinfo) -> Windows:
    """The windows of this text, `;` between them; no text means always.

    Raises:
        WindowError: one of them cannot be read.
    """
    parts = [part.strip() for part in text.split(";") if part.strip()]
    return Windows("; ".join(parts), tuple(map(_window, parts)), zone)


def _window(part: str) -> Window:
    found = _WINDOW.fullmatch(part)
    if found is None:
        raise WindowError(f"'{part}' is no window. {EXAMPLE}.")
    if _minutes(found["start"], part) == _minutes(found["end"], part):
        raise WindowError(f"'{part}' begins and ends at the same time. For a whole day write 00:00-24:00.")
    start, end = _time(found["start"], part), _time(found["end"], part)
    if start is None:
        raise WindowError(f"'{part}' begins at 24:00. Write 00:00 of the next day.")
    return Window(_days(found["days"], part), start, end)


def _days(text: str | None, part: str) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    days: set[int] = set()
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        begin = _day(first, part)
        end = _day(last, part) if last else begin
        days.update(day % 7 for day in range(begin, end + 1 if end >= begin else end + 8))
    return frozenset(days)


def _day(text: str, part: str) -> int:
    name = text.strip().title()[:3]
    full = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    if name not in DAYS or not full[DAYS.index(name)].startswith(text.strip().title()):
        raise WindowError(f"'{part}': '{text.strip()}' is no day of the week. Days are {', '.join(DAYS)}.")
    return DAYS.index(name)


def _minutes(text: str, part: str) -> int:
    hour, minute = map(int, text.split(":"))
    if minute > 59 or hour * 60 + minute > 24 * 60:
        raise WindowError(f"'{part}': {text} is no time of day. Times go from 00:00 to 24:00.")
    return hour * 60 + minute


def _time(text: str, part: str) -> time | None:
    """None for 24:00."""
    minutes = _minutes(text, part)
    return None if minutes == 24 * 60 else time(minutes // 60, minutes % 60)


def _readings(day: date, at: time, zone: tzinfo) -> Sequence[datetime]:
    """The one or two moments that this time of this day may mean; two where clocks are set forward or back."""
    return [datetime.combine(day, at, zone).replace(fold=fold).astimezone(UTC) for fold in (0, 1)]
