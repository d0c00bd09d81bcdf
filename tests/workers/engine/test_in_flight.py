from pathlib import Path

from workers.engine.in_flight import NAME, SLOT, InFlight, forget_in_flight, left_in_flight

IDS = [f"{number:032x}" for number in range(1, 101)]


def test_what_is_noted_and_not_removed_is_left_in_the_file_as_it_happens(tmp_path: Path) -> None:
    held = InFlight(tmp_path, slots=4)
    held.add(IDS[:70])
    assert left_in_flight(tmp_path) == frozenset(IDS[:70])
    held.remove([*IDS[:60], "f" * 32])
    held.add(IDS[70:])
    assert left_in_flight(tmp_path) == frozenset(IDS[60:])


def test_slots_are_used_again(tmp_path: Path) -> None:
    held = InFlight(tmp_path, slots=4)
    for request in IDS:
        held.add([request])
        held.remove([request])
    assert (tmp_path / NAME).stat().st_size == 4 * SLOT
    assert left_in_flight(tmp_path) == frozenset()


def test_without_an_engine_nothing_is_known(tmp_path: Path) -> None:
    assert left_in_flight(tmp_path) is None
    InFlight(tmp_path).add(IDS[:1])
    forget_in_flight(tmp_path)
    assert left_in_flight(tmp_path) is None
