"""Two evaluations of a benchmark, sample by sample: paired, counted, and shown side by side."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from submissions.context import Hub
from submissions.pairing import as_entry, compare, difference, pair
from submissions.verdicts import Counted
from tests.submissions.conftest import problem
from tests.submissions.factories import DEMO, add_evaluation, choice_sample, keep_samples
from tests.submissions.pages import page

COUNTED = (Counted("acc", "none"),)


def entries(records: list[dict[str, Any]]) -> list[Any]:
    return [as_entry(number, record, COUNTED) for number, record in enumerate(records)]


def two(hub: Hub, a: list[dict[str, Any]], b: list[dict[str, Any]], *, task: str = "demo_letters") -> None:
    with hub.writing() as session:
        for _ in range(2):
            add_evaluation(session, hub.suites["demo"], values=DEMO)
    keep_samples(hub, 1, "Letters", task=task, records=a)
    keep_samples(hub, 2, "Letters", task=task, records=b)


def test_verdicts_answers_and_prompts_are_told_apart() -> None:
    a = [choice_sample(number, right=number < 3) for number in range(5)]
    b = [choice_sample(number, right=number in (0, 1, 4)) for number in range(5)]
    b[1]["arguments"]["gen_args_0"]["arg_0"] = "Another question"
    found = compare(pair(entries(a), entries(b)).pairs)
    assert dict(found.by_kind) == {"judged": 2, "better": 1, "worse": 1, "answered": 2, "asked": 1, "all": 5}
    assert (found.both_right, found.only_a_right, found.only_b_right, found.both_wrong) == (2, 1, 1, 1)
    assert found.mcnemar_p == 1.0
    assert found.difference is not None
    assert (found.difference.value, found.mean_a and found.mean_a.value) == (0.0, 0.6)


def test_likelihoods_that_differ_by_rounding_are_the_same_answer() -> None:
    a, b = choice_sample(0), choice_sample(0)
    b["resps"][1] = [["-0.30001", "False"]]
    (found,) = pair(entries([a]), entries([b])).pairs
    assert not found.answered_otherwise


def test_documents_are_paired_by_contents_where_their_numbers_moved() -> None:
    a = [
        choice_sample(0) | {"doc_hash": "x"},
        choice_sample(1) | {"doc_hash": "y"},
        choice_sample(2) | {"doc_hash": "z"},
    ]
    b = [choice_sample(0) | {"doc_hash": "y"}, choice_sample(1) | {"doc_hash": "z"}]
    found = pair(entries(a), entries(b))
    assert [(one.a.document, one.b.document) for one in found.pairs] == [("1", "0"), ("2", "1")]
    assert (found.only_a, found.only_b) == (1, 0)


def test_of_equal_documents_each_is_paired_once() -> None:
    twin = {"doc_hash": "x"}
    a = [choice_sample(number) | twin for number in range(3)]
    found = pair(entries(a), entries(a[:2]))
    assert [(one.a.document, one.b.document) for one in found.pairs] == [("0", "0"), ("1", "1")]


def test_a_number_that_is_no_right_or_wrong_has_a_paired_difference_and_no_mcnemar() -> None:
    def graded(number: int, f1: float) -> dict[str, Any]:
        return {"doc_id": number, "filter": "none", "resps": [["x"]], "metrics": ["acc"], "acc": f1}

    found = compare(pair(entries([graded(0, 0.2), graded(1, 0.4)]), entries([graded(0, 0.6), graded(1, 0.4)])).pairs)
    assert found.mcnemar_p is None
    assert found.difference is not None
    assert found.difference.value == pytest.approx(0.2)
    assert found.by_kind["better"] == 1


@given(st.text(alphabet="ab \n", max_size=12), st.text(alphabet="ab \n", max_size=12))
def test_what_two_texts_share_and_where_they_differ_make_them_whole_again(a: str, b: str) -> None:
    parts = difference(a, b)
    assert parts.head + parts.a + parts.tail == a
    assert parts.head + parts.b + parts.tail == b
    assert not (parts.a or parts.b) or a != b


def test_the_page_shows_what_was_judged_otherwise_first_and_side_by_side(hub: Hub, client: TestClient) -> None:
    a = [choice_sample(number, right=number % 2 == 0) for number in range(12)]
    b = [choice_sample(number, right=number % 3 == 0) for number in range(12)]
    two(hub, a, b)
    found = page(client, "/diff?a=1&b=2&benchmark=Letters")
    assert "Documents in both 12" in found.text
    assert "Right in both, only A, only B, neither 2, 4, 2, 4" in found.text
    assert "Judged otherwise 6" in found.text
    assert "Document 2 right → wrong asked the same · answered otherwise" in found.text
    assert "Document 0" not in found.text
    assert "1 to 5 of 6" in found.text
    later = next(link for link in found.links if "offset=5" in link)
    assert "6 to 6 of 6" in page(client, later).text
    better = next(link for link in found.links if "kind=better" in link)
    assert "Document 3 wrong → right" in page(client, better).text


def test_prompts_that_differ_are_shown_where_they_do(hub: Hub, client: TestClient) -> None:
    a, b = choice_sample(0), choice_sample(0)
    for number in range(4):
        b["arguments"][f"gen_args_{number}"]["arg_0"] = "Question 0: which of these is a metal?\nA. stone"
    two(hub, [a], [b])
    found = page(client, "/diff?a=1&b=2&benchmark=Letters")
    assert "Asked otherwise 1" in found.text
    assert "Prompt, where it differs" in found.text
    assert "metal" in found.text


def test_a_hostile_sample_is_text_on_the_page(hub: Hub, client: TestClient) -> None:
    a = {"doc_id": 0, "filter": "none", "arguments": [["<script>alert(1)</script>", {}]], "resps": [["<b>x</b>"]]}
    two(hub, [a], [a | {"resps": [["</pre><img src=x>"]]}], task="demo_letters")
    html = client.get("/diff?a=1&b=2&benchmark=Letters&kind=all").text
    assert "<script>alert" not in html
    assert "<img src=x" not in html


def test_the_api_gives_the_same_numbers_and_both_records(hub: Hub, client: TestClient) -> None:
    a = [choice_sample(number) for number in range(3)]
    b = [choice_sample(number, right=number == 0) for number in range(3)]
    two(hub, a, b)
    found = client.get("/api/v1/diff?a=1&b=2&benchmark=Letters&limit=1").json()
    assert (found["kind"], found["total"], found["next_offset"]) == ("judged", 2, 1)
    assert (found["only_a_right"], found["both_right"], found["mcnemar_p"]) == (2, 1, 0.5)
    (shown,) = found["pairs"]
    assert (shown["document"], shown["right"], shown["a"]["acc"], shown["b"]["acc"]) == ("1", [True, False], 1.0, 0.0)
    assert found["difference"]["value"] == pytest.approx(-2 / 3)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("a=1&b=9&benchmark=Letters", "There is no evaluation 9."),
        ("a=1&b=2&benchmark=Nothing", "has no samples of a benchmark 'Nothing'"),
        (
            "a=1&b=2&benchmark=Letters&task=../x",
            "Not both have samples of a task of that name. Both have: demo_letters.",
        ),
        ("a=1&b=2&benchmark=Letters&filter=x", "Not both have samples of a filter of that name. Both have: none."),
    ],
)
def test_what_is_not_there_is_a_404_with_what_is(hub: Hub, client: TestClient, query: str, sentence: str) -> None:
    two(hub, [choice_sample(0)], [choice_sample(0)])
    assert sentence in problem(client.get(f"/api/v1/diff?{query}"), 404)["detail"]
    assert client.get(f"/diff?{query}").status_code == 404


def test_a_kind_that_there_is_not_is_refused(hub: Hub, client: TestClient) -> None:
    two(hub, [choice_sample(0)], [choice_sample(0)])
    assert client.get("/diff?a=1&b=2&benchmark=Letters&kind=x").status_code == 404
    assert problem(client.get("/api/v1/diff?a=1&b=2&benchmark=Letters&kind=x"), 422)


def test_two_evaluations_without_a_common_task_say_so(hub: Hub, client: TestClient) -> None:
    two(hub, [choice_sample(0)], [choice_sample(0)])
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    keep_samples(hub, 3, "Letters", task="other", records=[choice_sample(0)])
    answer = problem(client.get("/api/v1/diff?a=1&b=3&benchmark=Letters"), 404)
    assert "no task in common" in answer["detail"]


def test_documents_that_were_reordered_are_paired_by_contents_and_rewritten_ones_by_number() -> None:
    a = [choice_sample(0) | {"doc_hash": "x"}, choice_sample(1) | {"doc_hash": "y"}]
    reordered = [choice_sample(0) | {"doc_hash": "y"}, choice_sample(1) | {"doc_hash": "x"}]
    rewritten = [choice_sample(0) | {"doc_hash": "p"}, choice_sample(1) | {"doc_hash": "q"}]
    for b, expected in ((reordered, [("0", "1"), ("1", "0")]), (rewritten, [("0", "0"), ("1", "1")])):
        assert [(one.a.document, one.b.document) for one in pair(entries(a), entries(b)).pairs] == expected
