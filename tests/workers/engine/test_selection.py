from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.workers.engine.factories import generate, letter_choice, score, write_sheet
from workers.engine.selection import MAX_GROUP, SHORT_CONTEXT, WINDOW, group_key, in_slice, open_groups
from workers.sheets import Generate, Loglikelihood, Request

contexts = st.lists(st.integers(0, 3), min_size=1, max_size=SHORT_CONTEXT + 3)
requests = st.builds(score, contexts, st.lists(st.integers(0, 3), min_size=1, max_size=2))


def everything_open(request: str) -> bool:
    return True


def flat(groups: list[list[Request]]) -> list[Request]:
    return [request for group in groups for request in group]


def context_of(request: Request) -> tuple[int, ...]:
    assert isinstance(request, Loglikelihood)
    return tuple(request.context)


@given(asked=st.lists(requests, max_size=40), count=st.integers(1, 5))
def test_slices_are_a_partition_that_keeps_long_contexts_whole(
    tmp_path_factory: object, asked: list[Loglikelihood], count: int
) -> None:
    sheet = write_sheet(tmp_path_factory.mktemp("slices") / "sheet", asked)  # type: ignore[attr-defined]
    slices = [flat(list(open_groups([sheet], everything_open, slice_index=i, slice_count=count))) for i in range(count)]

    ids = [request.id for part in slices for request in part]
    assert sorted(ids) == sorted({request.id for request in asked})
    homes: dict[tuple[int, ...], int] = {}
    for index, part in enumerate(slices):
        for request in part:
            if len(context_of(request)) >= SHORT_CONTEXT:
                assert homes.setdefault(context_of(request), index) == index


@given(asked=st.lists(requests, max_size=40))
def test_requests_that_share_a_context_are_fed_side_by_side_in_the_order_of_the_sheet(
    tmp_path_factory: object, asked: list[Loglikelihood]
) -> None:
    sheet = write_sheet(tmp_path_factory.mktemp("order") / "sheet", asked)  # type: ignore[attr-defined]
    groups = list(open_groups([sheet], everything_open))

    keys = [group_key(group[0]) for group in groups]
    assert len(keys) == len(set(keys))
    assert all(group_key(request) == key for group, key in zip(groups, keys, strict=True) for request in group)
    assert keys == list(dict.fromkeys(group_key(request) for request in asked))


@given(key=st.binary(min_size=8, max_size=8), count=st.integers(1, 64))
def test_every_group_is_in_exactly_one_slice(key: bytes, count: int) -> None:
    assert sum(in_slice(key, index=index, count=count) for index in range(count)) == 1


def test_a_request_that_two_benchmarks_ask_is_fed_once(tmp_path: Path) -> None:
    first = write_sheet(tmp_path / "a", letter_choice(0) + letter_choice(1))
    second = write_sheet(tmp_path / "b", letter_choice(1) + letter_choice(2))

    fed = flat(list(open_groups([first, second], everything_open)))

    assert [r.id for r in fed] == [r.id for document in range(3) for r in letter_choice(document)]


def test_what_is_not_open_is_not_fed(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "a", letter_choice(0))
    known = letter_choice(0)[1].id

    fed = flat(list(open_groups([sheet], lambda request: request != known)))

    assert [request.id for request in fed] == [letter_choice(0)[index].id for index in (0, 2, 3)]


def test_a_very_large_group_is_fed_in_parts(tmp_path: Path) -> None:
    context = list(range(20))
    sheet = write_sheet(tmp_path / "a", [score(context, [token]) for token in range(MAX_GROUP + 5)])

    assert [len(group) for group in open_groups([sheet], everything_open)] == [MAX_GROUP, 5]


def test_generations_are_fed_first_while_they_are_wanted_and_all_of_both_kinds_come(tmp_path: Path) -> None:
    scored = [score([number] * 10, [1]) for number in range(6)]
    generated = [generate([number] * 10) for number in range(6)]
    sheets = [write_sheet(tmp_path / "scored", scored), write_sheet(tmp_path / "generated", generated)]
    fed: list[Request] = []

    def at_most_two_so_far() -> bool:
        return sum(isinstance(request, Generate) for request in fed) < 2

    for group in open_groups(sheets, everything_open, wants_generations=at_most_two_so_far):
        fed.extend(group)

    assert fed == generated[:2] + scored + generated[2:]


def test_a_sheet_longer_than_the_window_comes_whole_and_each_request_once(tmp_path: Path) -> None:
    asked = [score([number // 2] * 10, [number % 2]) for number in range(WINDOW + 500)]
    groups = list(open_groups([write_sheet(tmp_path / "sheet", asked)], everything_open))

    assert flat(groups) == asked
    assert all(len(group) == 2 for group in groups)
