from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.idle.windows import ALWAYS, WindowError, read_windows

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = "Mon-Fri 20:00-07:00; Sat,Sun 00:00-24:00"


def at(text: str, zone: ZoneInfo = BERLIN) -> datetime:
    """A time on the wall, as an aware time: `2026-11-23 20:00` is a Monday."""
    return datetime.fromisoformat(text).replace(tzinfo=zone)


@pytest.mark.parametrize(
    ("when", "is_open", "closes", "opens"),
    [
        ("2026-11-23 19:59", False, None, "Mon 20:00"),
        ("2026-11-23 20:00", True, "Tue 07:00", None),
        ("2026-11-24 06:59", True, "Tue 07:00", None),
        ("2026-11-24 07:00", False, None, "Tue 20:00"),
        ("2026-11-27 23:00", True, "Mon 00:00", None),  # Friday's night and the week-end are one
        ("2026-11-28 07:00", True, "Mon 00:00", None),
        ("2026-11-30 00:00", False, None, "Mon 20:00"),
    ],
)
def test_nights_and_weekends_are_open_and_days_are_not(
    when: str, is_open: bool, closes: str | None, opens: str | None
) -> None:
    windows, now = read_windows(NIGHTS, BERLIN), at(when)
    closing, opening = windows.closes_at(now), windows.opens_at(now)
    assert windows.is_open(now) is is_open
    assert (closing and windows.local(closing)) == closes
    assert (opening and windows.local(opening)) == opens


def test_without_windows_it_is_always_open_and_never_closes() -> None:
    now = at("2026-11-24 12:00")
    for windows in (ALWAYS, read_windows("", BERLIN), read_windows("00:00-24:00", BERLIN)):
        assert windows.is_open(now)
        assert windows.closes_at(now) is None


def test_a_window_is_meant_in_its_own_time_zone() -> None:
    windows = read_windows("20:00-07:00", ZoneInfo("America/New_York"))
    assert windows.is_open(at("2026-11-24 03:00", ZoneInfo("UTC")))
    assert not windows.is_open(at("2026-11-23 21:00"))


@pytest.mark.parametrize(
    ("window", "noon_before", "hours"),
    [
        ("20:00-07:00", "2026-03-28", 10),  # the night in which clocks go forward is an hour shorter
        ("20:00-07:00", "2026-10-24", 12),  # and the one in which they go back an hour longer
        ("20:00-07:00", "2026-11-24", 11),
        ("02:30-12:00", "2026-10-24", 9.5),  # 02:30 comes twice: it opens at the second
        ("20:00-02:30", "2026-10-24", 6.5),  # and closes at the first
    ],
)
def test_a_window_keeps_to_the_clock_on_the_wall_when_clocks_are_set(
    window: str, noon_before: str, hours: float
) -> None:
    windows = read_windows(window, BERLIN)
    opens = windows.opens_at(at(f"{noon_before} 12:00"))
    assert opens is not None
    closes = windows.closes_at(opens)
    assert closes is not None
    assert closes - opens == timedelta(hours=hours)


def test_a_time_that_clocks_jump_over_opens_late_and_closes_early() -> None:
    assert not read_windows("02:30-04:00", BERLIN).is_open(at("2026-03-29 03:15"))
    assert read_windows("02:30-04:00", BERLIN).is_open(at("2026-03-29 03:45"))
    assert not read_windows("20:00-02:30", BERLIN).is_open(at("2026-03-29 01:45"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Mon 8-9", "'Mon 8-9' is no window"),
        ("always", "is no window"),
        ("Mom 08:00-09:00", "'Mom' is no day of the week"),
        ("Mon 08:00-25:00", "25:00 is no time of day"),
        ("Mon 08:61-09:00", "08:61 is no time of day"),
        ("Mon 08:00-08:00", "00:00-24:00"),
        ("Mon 24:00-07:00", "00:00 of the next day"),
        ("Mon 20:00-07:00, Tue 20:00-07:00", "is no window"),
        ("Mon 20:00-07:00 20:00-07:00", "is no window"),
    ],
)
def test_what_is_no_window_is_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(WindowError, match=said):
        read_windows(text, BERLIN)


def test_days_are_read_as_people_write_them() -> None:
    written = ("Sat-Mon 09:00-17:00", "sat,SUN,Monday 9:00-17:00", "Sat-Sun 09:00-17:00; Mon 09:00-17:00")
    days = [at(f"2026-11-{day:02} 12:00") for day in range(2, 9)]
    found = [[read_windows(text, BERLIN).is_open(day) for day in days] for text in written]
    assert found == [[True, False, False, False, False, True, True]] * 3


@given(
    st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2027, 12, 31)),
    st.sampled_from([NIGHTS, "20:00-07:00", "Sun 01:00-04:00", "02:15-02:45; Wed 12:00-13:00", "23:00-01:00"]),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
)
def test_it_is_open_exactly_until_it_closes_and_closed_exactly_until_it_opens(
    when: datetime, text: str, zone: str
) -> None:
    windows, now = read_windows(text, ZoneInfo(zone)), when.replace(tzinfo=UTC)
    moment = timedelta(microseconds=1)
    closes, opens = windows.closes_at(now), windows.opens_at(now)
    assert windows.is_open(now) is (closes is not None) is (opens is None)
    change = closes or opens
    assert change is not None
    assert now < change <= now + timedelta(days=8)
    assert windows.is_open(change - moment) is windows.is_open(now)
    assert windows.is_open(change) is not windows.is_open(now)
