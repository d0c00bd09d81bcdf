from hypothesis import given
from hypothesis import strategies as st

from workers.engine.ledger import Ledger

ids = st.sets(st.sampled_from([f"{number:02d}" for number in range(12)]))


@given(asked=st.lists(ids, min_size=1, max_size=4), sealings=st.lists(ids, max_size=6))
def test_a_benchmark_is_done_exactly_when_its_every_request_is_sealed(
    asked: list[set[str]], sealings: list[set[str]]
) -> None:
    names = [f"B{index}" for index in range(len(asked))]
    ledger = Ledger(names)
    for index, wanted in enumerate(asked):
        ledger.ask(index, wanted)
    sealed: set[str] = set()
    wanted_by_any = set().union(*asked)

    for batch in sealings:
        new = (batch & wanted_by_any) - sealed
        assert ledger.seal(batch) == len(new)
        sealed |= batch
        assert ledger.benchmarks_done == [n for n, wanted in zip(names, asked, strict=True) if wanted <= sealed]
        assert ledger.sealed == len(sealed & wanted_by_any)

    assert ledger.total == len(wanted_by_any)
    assert ledger.open == len(wanted_by_any - sealed)


def test_a_request_is_taken_once_and_still_waits_to_be_sealed() -> None:
    ledger = Ledger(["A", "B"])
    ledger.ask(1, ["0a"])
    assert [ledger.take("0a"), ledger.take("0a"), ledger.take("0b")] == [True, False, False]
    assert (ledger.is_open("0a"), ledger.waiting("0a"), ledger.benchmarks_done) == (True, ["B"], ["A"])
    assert ledger.seal(["0a"]) == 1
    assert (ledger.is_open("0a"), ledger.take("0a"), ledger.benchmarks_done) == (False, False, ["A", "B"])


def test_a_request_asked_twice_by_one_benchmark_counts_once() -> None:
    ledger = Ledger(["A"])
    ledger.ask(0, ["0a", "0a"])
    assert ledger.total == 1
    ledger.seal(["0a"])
    assert ledger.benchmarks_done == ["A"]
