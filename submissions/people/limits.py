"""How often one person, or one address, may ask for something within a minute. Counted in this process.

It keeps one person from slowing down the rest. How many evaluations somebody may ask for in a day is another matter,
counted in the database: `submissions.people.quota`.
"""

import math
import time

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from submissions.people.refusals import TooMany

WRITES = parse("120/minute")
SUBMISSIONS = parse("30/minute")
"""Each makes the hub read a repository."""
CHECKS = parse("60/minute")
"""So does each of these; the form asks after each pause in the typing."""
SIGN_INS = parse("120/minute")
"""From one address; behind a proxy from the one that it names (`submissions.people.addresses`)."""


class Limiter:
    """Counts what was asked for within the last minute."""

    def __init__(self) -> None:
        self._window = MovingWindowRateLimiter(MemoryStorage())

    def take(self, item: RateLimitItem, who: str, *, what: str = "") -> None:
        """Count one more; each `what` has a count of its own.

        Raises:
            TooMany: there were too many already; this one is not counted.
        """
        if self._window.hit(item, what, who):
            return
        free_at = self._window.get_window_stats(item, what, who).reset_time
        seconds = max(1, math.ceil(free_at - time.time()))
        raise TooMany(
            f"That was more than {item.amount} times within a minute. Wait {seconds} s and go on.", retry_after=seconds
        )
