"""The gate: paired over stored samples, exact where it can be, corrected for several, closed where it cannot tell."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient

from orchestrator.lifecycle import EvaluationState
from submissions.context import Hub
from submissions.gate import Compared, Stratum, Unpaired, Verdict, compare, decide
from tests.submissions.conftest import problem
from tests.submissions.factories import DEMO, add_evaluation, choice_sample, keep_samples


def plain(task: str, both: int, only_ours: int, only_theirs: int, neither: int = 0, weight: float = 1.0) -> Stratum:
    ours = [1.0] * (both + only_ours) + [0.0] * (only_theirs + neither)
    theirs = [1.0] * both + [0.0] * only_ours + [1.0] * only_theirs + [0.0] * neither
    return Stratum(task, weight, ours, theirs)


def test_right_and_wrong_of_one_task_are_tested_exactly() -> None:
    found = compare("ARC", [plain("arc", both=50, only_ours=2, only_theirs=10)])
    # binomial(12, 1/2): (1 + 12 + 66) / 4096
    assert found.chance == pytest.approx(79 / 4096)
    assert found.difference == pytest.approx(100 * -8 / 62)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.difference < found.high


def test_tasks_count_as_the_suite_weighs_them_and_not_by_their_documents() -> None:
    strata = [plain("large", 900, 0, 0, 100, weight=0.5), plain("small", 10, 0, 10, weight=0.5)]
    found = compare("BBH", strata)
    assert found.difference == pytest.approx(-25.0)
    assert found.ours == pytest.approx(100 * (0.9 + 0.5) / 2)
    assert found.chance is not None
    assert found.chance < 0.001


def test_several_benchmarks_are_corrected_by_holm() -> None:
    found = [Compared(str(p), Verdict.UNKNOWN, chance=p) for p in (0.02, 0.03, 0.5)]
    decided = decide(found, alpha=0.05)
    assert [one.corrected for one in decided] == pytest.approx([0.06, 0.06, 0.5])
    assert {one.verdict for one in decided} == {Verdict.PASSED}
    assert decide(found[:1], alpha=0.05)[0].verdict is Verdict.REGRESSED


def test_a_gate_rejects_as_often_as_it_says_where_nothing_is_worse() -> None:
    chance = random.Random(7)
    rejected = 0
    for _ in range(400):
        strata = [
            Stratum(str(task), 0.2, *([float(chance.random() < 0.6) for _ in range(80)] for _ in range(2)))
            for task in range(5)
        ]
        rejected += (compare("x", strata).chance or 1) < 0.05
    assert 0.02 < rejected / 400 < 0.08


def test_too_few_documents_are_no_pass() -> None:
    with pytest.raises(Unpaired):
        compare("x", [Stratum("x", 1.0, [0.5, 0.2], [0.1, 0.9])])
    with pytest.raises(Unpaired):
        compare("x", [])


def judged(hub: Hub, right: Sequence[bool], **facts: Any) -> int:
    """A finished evaluation whose Letters were judged so, document by document."""
    with hub.writing() as session:
        number = add_evaluation(
            session, hub.suites["demo"], values=DEMO, model=f"acme/m{len(right)}-{sum(right)}", **facts
        ).id
    assert number is not None
    task = hub.suites["demo"].benchmark("Letters").parts[0].task
    keep_samples(
        hub, number, "Letters", task=task, records=[choice_sample(doc, right=one) for doc, one in enumerate(right)]
    )
    return number


def test_a_regression_is_told_and_a_mere_accident_is_not(client: TestClient, hub: Hub) -> None:
    baseline = judged(hub, [True] * 40 + [False] * 10)
    worse, same = judged(hub, [True] * 20 + [False] * 30), judged(hub, [True] * 39 + [False] * 11)
    found = client.get(f"/api/v1/evaluations/{worse}/gate?baseline={baseline}&benchmark=Letters").json()
    assert (found["verdict"], found["benchmarks"][0]["documents"]) == ("regressed", 50)
    assert found["sentence"] == f"Evaluation {worse} is significantly worse than {baseline} in Letters."
    assert found["benchmarks"][0]["difference"] == pytest.approx(-40.0)
    found = client.get(f"/api/v1/evaluations/{same}/gate?baseline={baseline}&benchmark=Letters").json()
    assert found["verdict"] == "passed"


def test_what_cannot_be_compared_never_passes(client: TestClient, hub: Hub) -> None:
    baseline, other = judged(hub, [True] * 50), judged(hub, [True] * 50)
    found = client.get(f"/api/v1/evaluations/{other}/gate?baseline={baseline}").json()
    assert found["verdict"] == "unknown"
    assert [one["verdict"] for one in found["benchmarks"]] == ["passed", "unknown", "unknown"]
    problem(client.get(f"/api/v1/evaluations/{other}/gate?baseline={baseline}&benchmark=Nonsense"), 404)
    problem(client.get(f"/api/v1/evaluations/{other}/gate?baseline={other}"), 422)
    with hub.writing() as session:
        running = add_evaluation(session, hub.suites["demo"], state=EvaluationState.RUNNING).id
    assert "--wait" in problem(client.get(f"/api/v1/evaluations/{running}/gate?baseline={baseline}"), 409)["detail"]
