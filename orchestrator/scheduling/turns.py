"""The order of the queue: one formula, written into a job when it is made or boosted. Pure.

    turn = when the evaluation was made, or 6 h after the turn of its submitter's last unfinished one, if that is later
         + 1 h   for each 10 billion parameters that a token meets, 12 h at most (size)
         - 24 h  for each step of an operator's boost                           (priority)
         - 1 h   for each vote, 48 h at most                                    (votes)

The earliest turn goes first. The first line is fair queueing in virtual time: each submitter has a line of their own,
whose members stand 6 h apart, so a submitter who brings a hundred models at once has them spread over the days to come,
in the order in which they came. That delays nobody else and, while nobody else waits, not them either. Size, boost and
votes do not move the line. All terms are bounded and time passes for all alike, so what waits is overtaken only by
evaluations made within that bound after it, and nothing starves.
"""

from datetime import datetime, timedelta

APART = timedelta(hours=6)
MOST_APART = timedelta(days=100)
SIZE = timedelta(hours=1)
SIZE_STEP = 10_000_000_000
MOST_STEPS = 12
BOOST = timedelta(hours=24)
MOST_BOOST = 30
VOTE = timedelta(hours=1)
MOST_VOTES = 48


def in_line(made_at: datetime, *, last: datetime | None) -> datetime:
    """The place in its submitter's line of an evaluation that is made now.

    `last`: the place of their last unfinished one; None if there is none.
    """
    return made_at if last is None else min(max(made_at, last + APART), made_at + MOST_APART)


def turn(place: datetime, *, parameters: int | None = None, boost: int = 0, votes: int = 0) -> datetime:
    """When an evaluation's jobs count as having come. `parameters`: weights that one token meets, None if unknown."""
    size = min(parameters or 0, MOST_STEPS * SIZE_STEP) / SIZE_STEP * SIZE
    return boosted(place + size - worth(votes), before=0, after=boost)


def worth(votes: int) -> timedelta:
    """How much earlier these votes make a turn."""
    return min(max(votes, 0), MOST_VOTES) * VOTE


def boosted(turn_at: datetime, *, before: int, after: int) -> datetime:
    """The same turn with another boost."""
    return turn_at + (_within(before) - _within(after)) * BOOST


def _within(boost: int) -> int:
    return max(-MOST_BOOST, min(boost, MOST_BOOST))
