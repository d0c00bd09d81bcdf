import math
from types import SimpleNamespace
from typing import Any

import pytest

from tests.workers.engine.factories import score as asked
from workers.engine.vllm_rows import Siblings, Token, read_continuation, score

CONTEXT = list(range(10, 20))


def row(token: int, logprob: float, *, best: float | None = None) -> dict[int, Any]:
    """A row as vLLM gives it: the asked token and the likeliest one."""
    found = {token: SimpleNamespace(logprob=logprob)}
    if best is not None:
        found[token + 1000] = SimpleNamespace(logprob=best)
    return found


def rows(continuation: list[int], *, unset: int = 0) -> list[Any]:
    """Rows of the whole prompt; token n has log-probability -n / 8, and the first `unset` of the continuation none."""
    scored = [row(token, -token / 8) for token in continuation]
    return [None] * len(CONTEXT) + [{}] * unset + scored[unset:]


def test_a_continuation_is_the_sum_of_its_own_rows() -> None:
    tokens = read_continuation(asked(CONTEXT, [1, 2, 3]), rows([1, 2, 3]), cached=0, siblings=Siblings(1))

    assert tokens is not None
    assert score(asked(CONTEXT, [1, 2, 3]), tokens).logprob == -6 / 8


def test_a_cache_that_ends_before_the_last_context_token_hides_nothing() -> None:
    last = len(CONTEXT) - 1
    assert read_continuation(asked(CONTEXT, [1]), rows([1]), cached=last, siblings=Siblings(1)) is not None


def test_rows_that_the_cache_hid_are_not_believed_even_when_they_look_like_rows() -> None:
    request = asked(CONTEXT, [1, 2, 3])
    assert read_continuation(request, rows([1, 2, 3]), cached=len(CONTEXT), siblings=Siblings(2)) is None


@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_hidden_rows_come_from_a_sibling_that_begins_alike(hidden: int) -> None:
    siblings = Siblings(3)
    for other in ([9, 9, 9, 9], [1, 2, 3, 7]):
        found = read_continuation(asked(CONTEXT, other), rows(other), cached=0, siblings=siblings)
        assert found is not None
        siblings.remember(other, found)

    tokens = read_continuation(
        asked(CONTEXT, [1, 2, 3]), rows([1, 2, 3], unset=hidden), cached=len(CONTEXT) - 1 + hidden, siblings=siblings
    )

    assert tokens == [Token(-token / 8, True) for token in (1, 2, 3)]


def test_a_sibling_that_begins_otherwise_is_no_help() -> None:
    siblings = Siblings(2)
    siblings.remember([1, 5], [Token(-1.0, True), Token(-2.0, True)])
    request = asked(CONTEXT, [1, 2, 3])

    assert read_continuation(request, rows([1, 2, 3], unset=2), cached=len(CONTEXT) + 1, siblings=siblings) is None


def test_a_row_that_is_no_number_is_not_summed() -> None:
    broken = [*rows([1]), row(2, math.nan)]
    assert read_continuation(asked(CONTEXT, [1, 2]), broken, cached=0, siblings=Siblings(1)) is None


def test_greedy_is_what_nothing_exceeds_a_tie_included() -> None:
    given = [*rows([]), row(1, -0.5, best=-0.5), row(2, -0.5, best=-0.25)]
    tokens = read_continuation(asked(CONTEXT, [1, 2]), given, cached=0, siblings=Siblings(1))

    assert tokens is not None
    assert [token.greedy for token in tokens] == [True, False]
    assert not score(asked(CONTEXT, [1, 2]), tokens).greedy


def test_fewer_rows_than_tokens_are_none_that_can_be_believed() -> None:
    request = asked(CONTEXT, [1, 2, 3])
    assert read_continuation(request, rows([2, 3])[-2:], cached=0, siblings=Siblings(1)) is None
