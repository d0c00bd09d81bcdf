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


def test_a_request_asked_twice_by_one_benchmark_counts_once() -> None:
    ledger = Ledger(["A"])
    ledger.ask(0, ["x", "x"])
    assert ledger.total == 1
    ledger.seal(["x"])
    assert ledger.benchmarks_done == ["A"]
