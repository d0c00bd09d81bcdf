"""The order of the queue: one formula, written into a job when it is made or boosted. Pure.

    turn = when the evaluation was made
         + 6 h   for each evaluation that its submitter had unfinished then     (fair shares)
         + 1 h   for each 10 billion parameters that a token meets, 12 h at most (size)
         - 24 h  for each step of an operator's boost                           (priority)
         - 1 h   for each vote, 48 h at most                                    (votes)

The earliest turn goes first. Whatever the terms add up to, they are bounded: time passes for all alike, so a job that
waits is overtaken only by evaluations made within that bound after it, and nothing starves. A submitter who brings a
hundred models at once has them spread over the days to come, which delays nobody else and, while nobody else waits,
not them either.
"""

from datetime import datetime, timedelta

UNFINISHED = timedelta(hours=6)
MOST_UNFINISHED = 400
SIZE = timedelta(hours=1)
SIZE_STEP = 10_000_000_000
MOST_STEPS = 12
BOOST = timedelta(hours=24)
MOST_BOOST = 30
VOTE = timedelta(hours=1)
MOST_VOTES = 48


def turn(
    made_at: datetime, *, unfinished: int = 0, parameters: int | None = None, boost: int = 0, votes: int = 0
) -> datetime:
    """When an evaluation's jobs count as having come. `parameters`: weights that one token meets, None if unknown."""
    later = min(max(unfinished, 0), MOST_UNFINISHED) * UNFINISHED
    later += min(parameters or 0, MOST_STEPS * SIZE_STEP) / SIZE_STEP * SIZE
    return boosted(made_at + later - worth(votes), before=0, after=boost)


def worth(votes: int) -> timedelta:
    """How much earlier these votes make a turn."""
    return min(max(votes, 0), MOST_VOTES) * VOTE


def boosted(turn_at: datetime, *, before: int, after: int) -> datetime:
    """The same turn with another boost."""
    return turn_at + (_within(before) - _within(after)) * BOOST


def _within(boost: int) -> int:
    return max(-MOST_BOOST, min(boost, MOST_BOOST))
