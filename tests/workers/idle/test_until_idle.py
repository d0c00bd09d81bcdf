"""A launched worker ends itself: after so long without work, and never while it has some."""

import threading
from typing import Any

from workers.idle.until_idle import NOTICE_SECONDS, UntilIdle


class Busyness:
    """What the thread sees of a supervisor."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.changed = threading.Event()
        self.attempts: dict[str, Any] = {}

    def progress(self) -> dict[str, Any]:
        return self.attempts


class Watched:
    def __init__(self, seconds: float = 60) -> None:
        self.now = 1000.0
        self.supervisor = Busyness()
        self.until_idle = UntilIdle(self.supervisor, seconds, end=lambda: None, now=lambda: self.now)  # type: ignore[arg-type]

    def after(self, seconds: float) -> bool:
        self.now += seconds
        return self.until_idle.is_over()


def test_it_tells_the_hub_first_and_ends_a_moment_later():
    worker = Watched(60)
    assert not worker.after(0)
    assert not worker.after(59)
    assert not worker.supervisor.stopping.is_set()
    assert not worker.after(1)
    assert worker.supervisor.stopping.is_set()
    assert worker.supervisor.changed.is_set()
    assert not worker.after(NOTICE_SECONDS - 0.1)
    assert worker.after(0.1)


def test_the_time_without_work_begins_anew_with_each_piece_of_it():
    worker = Watched(60)
    worker.after(0)
    worker.supervisor.attempts = {"one": None}
    worker.after(59)
    worker.after(100)
    worker.supervisor.attempts = {}
    assert not worker.after(59)
    assert not worker.supervisor.stopping.is_set()
    worker.after(1)
    assert worker.supervisor.stopping.is_set()


def test_an_order_that_came_in_the_last_moment_is_given_back_before_the_end():
    worker = Watched(60)
    worker.after(0)
    worker.after(60)
    worker.supervisor.attempts = {"late": None}
    assert not worker.after(NOTICE_SECONDS)
    worker.supervisor.attempts = {}
    assert worker.after(0)
