"""What a re-run changed: composed from two boards, told as JSON, Markdown and CSV."""

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.board import Board, Cell, Standing, rank_rows
from orchestrator.lifecycle import RerunState
from orchestrator.reruns.changes import Report
from orchestrator.reruns.report import Found, compose
from orchestrator.reruns.report_forms import as_csv, as_markdown, as_record, climbed, signed
from orchestrator.suites import Suite
from orchestrator.tables import Rerun
from tests.orchestrator.yard import make_suite

NOW = datetime(2026, 3, 4, tzinfo=UTC)
OLD, NEW = make_suite("ARC", "MMLU"), make_suite("ARC", "MMLU", version="2")


def row(suite: Suite, evaluation: int, *values: float | None, **facts: Any) -> Standing:
    names = [benchmark.name for benchmark in suite.benchmarks]
    cells = {name: Cell(value, stderr=1.0) for name, value in zip(names, values, strict=True) if value is not None}
    known = [value for value in values if value is not None]
    fields: dict[str, Any] = {"model": f"org/m{evaluation % 100}", "revision": "c0ffee", "precision": "bfloat16"}
    return Standing(
        evaluation=evaluation,
        suite=suite.name,
        suite_version=suite.version,
        cells=cells,
        average=sum(known) / len(names) if len(known) == len(names) else None,
        **(fields | {"engine": "vllm"} | facts),
    )


def report(before: list[Standing], after: list[Standing], *, old: Suite = OLD, new: Suite = NEW, **more: Any) -> Report:
    """Evaluations 1, 2, … are those of submissions 1, 2, …; 101, 102, … the same submissions' new ones."""
    rerun = Rerun(id=7, suite=old.name, from_version=old.version, to_version=new.version, state=RerunState.RUNNING)
    submissions = {one.evaluation: one.evaluation % 100 for one in (*before, *after)}
    boards: tuple[Board, Board] = (rank_rows(old, before), rank_rows(new, after))
    return compose(rerun, *boards, submissions=submissions, now=NOW, **more)


def three() -> Report:
    before = [row(OLD, 1, 10, 50), row(OLD, 2, 20, 60), row(OLD, 3, 30, 70)]
    after = [row(NEW, 101, 40, 50), row(NEW, 102, 20, 60), row(NEW, 103, 30, 70)]
    return report(before, after, findings=[Found("ARC", "score", 3, "A filter differs."), Found("MMLU", "same", 3)])


def test_one_model_that_gained_moves_the_mean_by_its_share_and_climbs() -> None:
    found = three()
    arc, mmlu = found.shifts
    assert (arc.models, arc.changed, arc.mean_before, arc.mean_after) == (3, 1, 20, 30)
    # Differences 30, 0, 0: mean 10, standard error 10, t(2) = 4.30265.
    assert (arc.shift, arc.low, arc.high) == pytest.approx((10, 10 - 43.0265, 10 + 43.0265), abs=1e-3)
    assert arc.verdicts == {"score": 3}
    assert arc.sentences == ("A filter differs.",)
    assert (mmlu.changed, mmlu.shift, mmlu.low, mmlu.high, mmlu.pearson) == (0, 0, 0, 0, pytest.approx(1))
    assert [(one.model, one.rank_before, one.rank_after) for one in found.rank_changes] == [
        ("org/m1", 3, 2),
        ("org/m2", 2, 3),
    ]
    assert [(mover.model.model, mover.change.difference) for mover in arc.movers] == [("org/m1", 30)]
    assert mmlu.movers == ()


def test_ranks_are_counted_among_the_models_that_have_both() -> None:
    before = [row(OLD, 1, 90, 90), row(OLD, 2, 20, 20), row(OLD, 3, 10, 10)]
    found = report(before, [row(NEW, 102, 20, 20), row(NEW, 103, 10, 10)])
    assert [(one.model, one.rank_before, one.rank_after) for one in found.models] == [
        ("org/m2", 1, 1),
        ("org/m3", 2, 2),
    ]
    assert found.rank_changes == ()
    assert (found.finished_before, found.compared) == (3, 2)


def test_a_model_without_one_score_counts_where_it_has_both_and_has_no_rank() -> None:
    before = [row(OLD, 1, 10, 50), row(OLD, 2, 20, 60)]
    found = report(before, [row(NEW, 101, 12, None), row(NEW, 102, 20, 60)])
    arc, mmlu = found.shifts
    assert (arc.models, mmlu.models, found.average.models) == (2, 1, 1)
    assert mmlu.low is None  # one model tells nothing of the spread
    lacking = next(one for one in found.models if one.model == "org/m1")
    assert (lacking.rank_before, lacking.rank_after, lacking.climbed) == (None, None, None)
    assert next(one for one in found.models if one.model == "org/m2").rank_before == 1


def test_trials_made_up_answers_and_changed_engines_are_listed_and_not_counted() -> None:
    before = [row(OLD, 1, 1, 1, document_limit=5), row(OLD, 2, 2, 2, engine="scripted"), row(OLD, 3, 3, 3)]
    after = [
        row(NEW, 101, 9, 9, document_limit=5),
        row(NEW, 102, 9, 9, engine="scripted"),
        row(NEW, 103, 9, 9, engine="transformers"),
    ]
    found = report(before, after)
    assert found.models == ()
    assert found.average.models == 0
    assert [one.left_out_because.split()[0] for one in found.left_out] == ["A", "Its", "It"]
    assert "No model is finished under both versions yet." in as_markdown(found)


def test_benchmarks_of_one_version_alone_are_named() -> None:
    new = make_suite("ARC", "GPQA", version="2")
    found = report([row(OLD, 1, 1, 2)], [row(new, 101, 1, 2)], new=new)
    assert (found.only_before, found.only_after) == (("MMLU",), ("GPQA",))
    assert [shift.benchmark for shift in found.shifts] == ["ARC"]


def test_of_several_evaluations_of_a_submission_the_latest_whole_one_is_compared() -> None:
    before = [row(OLD, 1, 10, 10), row(OLD, 201, 11, 11), row(OLD, 301, 99, 99, document_limit=3)]
    (found,) = report(before, [row(NEW, 101, 12, 12)]).models
    assert (found.before, found.after) == (201, 101)


def test_the_three_forms_tell_the_same_numbers() -> None:
    found = three()
    record = json.loads(json.dumps(as_record(found), allow_nan=False))
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    for model in record["models"]:
        own = {one["benchmark"]: one for one in rows if one["model"] == model["model"]}
        assert own.keys() == {"Average", *model["benchmarks"]}
        for name, change in {"Average": model["average"], **model["benchmarks"]}.items():
            assert float(own[name]["difference"]) == change["difference"]
            assert float(own[name]["before_stderr"]) == change["before"]["stderr"]
        assert own["Average"]["rank_after"] == str(model["rank_after"])
    text = as_markdown(found)
    assert "| ARC | 3 | 1 | 20.00 | 30.00 | +10.00 | −33.03 to +53.03 |" in text
    assert "[samples of 1 and 101](</diff?a=1&b=101&benchmark=ARC>)" in text
    assert record["benchmarks"][0]["movers"][0]["samples"] == "/diff?a=1&b=101&benchmark=ARC"


@pytest.mark.parametrize("name", ["=1+1", "+cmd", "-2", "@sum", "\t=x", '=HYPERLINK("http://x")'])
def test_no_spreadsheet_takes_a_models_name_for_a_formula(name: str) -> None:
    found = report([row(OLD, 1, 1, 2, model=name)], [row(NEW, 101, 1, 2, model=name)])
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert {one["model"] for one in rows} == {"'" + name}


def test_a_models_name_is_text_in_markdown_and_breaks_no_table() -> None:
    hostile = "a|b\n# [x](javascript:y) <img src=x> `"
    text = as_markdown(report([row(OLD, 1, 1, 2, model=hostile)], [row(NEW, 101, 9, 2, model=hostile)]))
    line = next(line for line in text.splitlines() if "javascript" in line)
    assert line.startswith(r"| a\|b \# \[x\](javascript:y) \<img src=x\> \` |")
    assert line.count("|") - line.count(r"\|") == 8


def test_numbers_are_signed_and_zero_is_not() -> None:
    assert [signed(value) for value in (1.254, -0.5, 0.0, -0.001, None)] == ["+1.25", "−0.50", "0.00", "0.00", "–"]
    first, second, third = three().models
    assert [climbed(one) for one in (first, second, third)] == ["3 to 2 (+1)", "2 to 3 (−1)", "1 to 1"]
