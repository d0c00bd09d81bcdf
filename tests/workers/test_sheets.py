from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import sheets
from workers.sheets import Document, Generate, Instance, Loglikelihood, SheetInfo, generate_id, loglikelihood_id

tokens = st.lists(st.integers(0, 2**32 - 1), max_size=6)
pair = st.tuples(tokens, tokens)


@given(first=pair, second=pair)
def test_two_log_likelihood_requests_share_an_address_only_when_both_id_lists_are_equal(
    first: tuple[list[int], list[int]], second: tuple[list[int], list[int]]
) -> None:
    assert (loglikelihood_id(*first) == loglikelihood_id(*second)) == (first == second)


def test_where_the_context_ends_is_part_of_the_address() -> None:
    assert loglikelihood_id([1, 2], [3]) != loglikelihood_id([1], [2, 3])


def test_the_address_of_a_known_request_never_changes() -> None:
    # Stored responses are found by these; a changed function would orphan them all.
    assert loglikelihood_id([1, 2], [3]) == "e6e7b7d498bfa6381d66e99d976140fa"
    arguments = {"max_tokens": 8, "stop": ["\n"], "sampling": {"temperature": 0.0}, "seed": None}
    assert generate_id([1, 2], **arguments) == "5243e96a87a614b177820723b4a07002"


@pytest.mark.parametrize(
    "change",
    [{"max_tokens": 9}, {"stop": ["\n\n"]}, {"stop": []}, {"sampling": {"temperature": 0.5}}, {"seed": 1}],
)
def test_every_argument_that_the_engine_is_sent_is_part_of_a_generation_s_address(change: dict) -> None:
    arguments = {"max_tokens": 8, "stop": ["\n"], "sampling": {"temperature": 0.0}, "seed": None}
    assert generate_id([1, 2], **arguments) != generate_id([1, 2], **arguments | change)


def test_the_order_of_sampling_arguments_does_not_change_the_address() -> None:
    first = generate_id([1], max_tokens=1, stop=[], sampling={"a": 1, "b": 2}, seed=None)
    assert first == generate_id([1], max_tokens=1, stop=[], sampling={"b": 2, "a": 1}, seed=None)


def test_a_sheet_reads_back_what_was_written(tmp_path: Path) -> None:
    requests = [
        Loglikelihood("a" * 32, [1, 2], [3]),
        Generate("b" * 32, [4], 16, ["\n", "</s>"], {"temperature": 0.7}, 12),
        Generate("c" * 32, [5], 16),
    ]
    instances = [Instance("arc", 0, 1, "loglikelihood", ["Frage: warum — 🙂?\n", " A"], [["a" * 32]])]
    documents = [Document("arc", 0, {"question": "warum?", "choices": [1, None, {"x": "y"}]})]
    info = SheetInfo("ARC", "vllm", 3, 1, 1, 0, 20, {"weights": "sha256-0"}, {"limit": None}, {"lm_eval": "0.4.13"})

    sheets.write_lines(tmp_path / "requests.jsonl.zst", requests)
    sheets.write_lines(tmp_path / "instances.jsonl.zst", instances)
    sheets.write_lines(tmp_path / "documents.jsonl.zst", documents)
    sheets.write_info(tmp_path, info)

    assert list(sheets.read_requests(tmp_path)) == requests
    assert list(sheets.read_instances(tmp_path)) == instances
    assert list(sheets.read_documents(tmp_path)) == documents
    assert sheets.read_info(tmp_path) == info
    assert not list(tmp_path.glob("*.tmp"))


def test_a_file_that_is_cut_off_or_changed_is_damaged_and_never_a_shorter_sheet(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl.zst"
    whole = [Loglikelihood(f"{number:032x}", [number], [3]) for number in range(5000)]
    sheets.write_lines(path, whole)
    data = path.read_bytes()
    assert list(sheets.read_requests(tmp_path)) == whole
    for size in {0, 1, len(data) // 2, len(data) - 1, *range(10, len(data), len(data) // 20)}:
        path.write_bytes(data[:size])
        with pytest.raises(sheets.DamagedSheet, match=r"requests\.jsonl\.zst is cut off\. Prepare"):
            list(sheets.read_lines(path))
    for place in range(20, len(data), len(data) // 20):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(sheets.DamagedSheet, match="Prepare the benchmark again"):
            list(sheets.read_lines(path))


def test_a_file_without_records_reads_as_none(tmp_path: Path) -> None:
    assert sheets.write_lines(tmp_path / "none.jsonl.zst", []) == 0
    assert list(sheets.read_lines(tmp_path / "none.jsonl.zst")) == []


def test_an_unknown_kind_of_request_is_refused(tmp_path: Path) -> None:
    sheets.write_lines(tmp_path / "requests.jsonl.zst", [{"kind": "embed", "id": "x"}])
    with pytest.raises(msgspec.ValidationError):
        list(sheets.read_requests(tmp_path))


def test_a_folder_s_digest_covers_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    first = sheets.folder_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = sheets.folder_digest(tmp_path)
    (tmp_path / "b").write_bytes(b"2")
    assert len({first, renamed, sheets.folder_digest(tmp_path)}) == 3


def test_the_longest_request_counts_what_it_may_generate() -> None:
    assert Generate("x", [1, 2], 16).length == 18
    assert Loglikelihood("x", [1, 2], [3]).length == 3
