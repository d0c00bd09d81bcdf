from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import segments
from workers.segments import DamagedSegment, Generated, Header, Response, Scored

HEADER = Header("f" * 32, "attempt-1", {"family": "scripted"}, {"batch": 4})

responses = st.lists(
    st.builds(Scored, st.text(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
    | st.builds(Generated, st.text(), st.text(), st.lists(st.integers(0, 2**31)), st.sampled_from(["stop", "length"])),
    max_size=20,
)


@given(answers=responses)
def test_a_segment_reads_back_exactly_what_was_sealed(
    tmp_path_factory: pytest.TempPathFactory, answers: list[Response]
) -> None:
    path = segments.seal(tmp_path_factory.mktemp("sealed"), 3, HEADER, answers)
    assert segments.read(path) == (HEADER, answers)


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int) -> None:
    path = segments.seal(tmp_path_factory.mktemp("damaged"), 0, HEADER, [Scored("a", -1.5, True)])
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(DamagedSegment, match=path.name):
        segments.read(path)


def test_a_segment_cut_short_is_noticed(tmp_path: Path) -> None:
    path = segments.seal(tmp_path, 0, HEADER, [Scored("a", -1.5, True)])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedSegment):
        segments.read(path)


def test_names_sort_in_the_order_of_their_numbers_and_no_temporary_file_stays(tmp_path: Path) -> None:
    paths = [segments.seal(tmp_path, number, HEADER, [Scored(str(number), -1.0, False)]) for number in (2, 11, 100)]
    assert sorted(tmp_path.iterdir()) == paths
    assert [path.name.partition("-")[0] for path in paths] == ["000002", "000011", "000100"]


def test_text_of_any_language_survives(tmp_path: Path) -> None:
    answer = Generated("a", "Grüße 🙂\u2028\x00 文\n", [1, 2], "stop")
    assert segments.read(segments.seal(tmp_path, 0, HEADER, [answer]))[1] == [answer]
