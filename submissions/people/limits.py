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
SIGN_INS = parse("120/minute")
"""From one address, which behind a proxy is everybody's."""


class Limiter:
    """Counts what was asked for within the last minute."""

    def __init__(self) -> None:
        self._window = MovingWindowRateLimiter(MemoryStorage())

    def take(self, item: RateLimitItem, who: str) -> None:
        """Count one more.

        Raises:
            TooMany: there were too many already; this one is not counted.
        """
        if self._window.hit(item, who):
            return
        free_at = self._window.get_window_stats(item, who).reset_time
        seconds = max(1, math.ceil(free_at - time.time()))
        raise TooMany(
            f"That was more than {item.amount} times within a minute. Wait {seconds} s and go on.", retry_after=seconds
        )
