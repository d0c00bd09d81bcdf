"""Lists in chunks are what plain lists would be, and a change copies no more of a long one than of a short one."""

import random
import tracemalloc
from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.board import Table
from orchestrator.board.chunks import CHUNK, Chunked, Sorted
from tests.orchestrator.board.rows import DEMO, ask, row

LENGTHS = st.sampled_from([0, 1, CHUNK - 1, 2 * CHUNK - 1, 2 * CHUNK, 5 * CHUNK + 3])
SEEDS = st.randoms(use_true_random=False)


def same(chunked: Chunked[int], plain: list[int]) -> None:
    assert (list(chunked), len(chunked), list(reversed(chunked))) == (plain, len(plain), plain[::-1])
    assert [chunked[place] for place in range(-len(plain), len(plain))] == plain + plain
    for ends in (slice(None), slice(3, 700), slice(CHUNK - 1, -2), slice(5000, None), slice(9, 4), slice(2, 900, 7)):
        assert chunked[ends] == plain[ends]
    for beyond in (len(plain), -len(plain) - 1):
        with pytest.raises(IndexError):
            chunked[beyond]


@settings(deadline=None, max_examples=40)
@given(LENGTHS, SEEDS)
def test_replaced_values_stand_where_they_would_in_a_list(length: int, chance: random.Random) -> None:
    plain = list(range(length))
    chunked = Chunked(plain)
    for _ in range(3):
        before = list(plain)
        some = {place: -place for place in chance.sample(range(len(plain)), min(len(plain), 5))}
        added = {len(plain) + more: chance.randrange(100) for more in range(chance.choice([0, 1, 3 * CHUNK]))}
        changed = chunked.replaced(some | added)
        for place, value in some.items():
            plain[place] = value
        plain += added.values()
        same(changed, plain)
        same(chunked, before)
        chunked = changed


@settings(deadline=None, max_examples=40)
@given(LENGTHS, SEEDS)
def test_a_sorted_list_stays_sorted_whatever_comes_and_goes(length: int, chance: random.Random) -> None:
    plain = sorted(chance.sample(range(0, 20 * CHUNK, 2), length))
    chunked = Sorted(plain)
    for _ in range(3):
        before = list(plain)
        gone = chance.sample(plain, min(len(plain), chance.choice([0, 1, 9, length])))
        absent = sorted(set(range(-5, 20 * CHUNK)) - set(plain))
        come = chance.sample(absent, chance.choice([0, 1, 9, 2 * CHUNK]))
        changed = chunked.changed(gone, come)
        for value in gone:
            plain.remove(value)
        plain = sorted(plain + come)
        same(changed, plain)
        same(chunked, before)
        asked = range(-6, 20 * CHUNK, 5)
        assert [changed.place(value) for value in asked] == [bisect_left(plain, value) for value in asked]
        chunked = changed


def test_what_is_not_there_cannot_go() -> None:
    with pytest.raises(AssertionError):
        Sorted([1, 3]).changed([2], [])


def test_a_new_result_takes_no_more_memory_on_a_large_board_than_on_a_small_one() -> None:
    taken = []
    for many in (1_000, 16_000):
        table = Table(DEMO, [row(number, (number * 7919) % 9973 / 100) for number in range(1, many + 1)])
        for query in ("", "sort=parameters", "sort=model", "sort=date", "q=m1", "sort=Sums"):
            ask(table, query)
        changed = table.changed({many + 1: row(many + 1, 50.0)})  # the first time fills caches
        tracemalloc.start()
        kept = changed.changed({many + 2: row(many + 2, 51.0)})
        taken.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(kept) == many + 2
    # A bit for each row and a pointer for each chunk are all that there is more of.
    assert taken[1] < 4 * taken[0], taken
