"""Rows of the Open LLM Leaderboard, imported from its own files, have the averages and ranks that they had there."""

import json
import resource
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from sqlmodel import col, select

from orchestrator import jobs
from orchestrator.errors import Refused, WrongState
from orchestrator.exchange.importer import import_board
from orchestrator.lifecycle import EvaluationState
from orchestrator.reruns.coverage import is_planned
from orchestrator.suites import load_suites
from orchestrator.tables import Evaluation
from submissions.context import Hub
from tests.submissions.publishing.conftest import board, take

COLUMNS = ("ARC", "HellaSwag", "MMLU", "TruthfulQA", "Winogrande", "GSM8K")
PUBLISHED = {
    "mistralai/Mistral-7B-Instruct-v0.2": (65.71, [63.14, 84.88, 60.78, 68.26, 77.19, 40.03]),
    "01-ai/Yi-34B-Chat": (65.32, [65.44, 84.16, 74.9, 55.37, 80.11, 31.92]),
    "Qwen/Qwen1.5-14B-Chat": (62.37, [58.79, 82.33, 68.52, 60.38, 73.32, 30.86]),
    "01-ai/Yi-6B": (54.08, [55.55, 76.57, 64.11, 41.96, 74.19, 12.13]),
    "KoRWKV-6B": (28.19, [22.1, 32.18, 24.69, 39.05, 51.14, 0.0]),
    "dolly-v2-3b": (22.83, [25.26, 26.55, 24.7, 0.0, 59.43, 1.06]),
}
BROKEN = (20.07, [22.7, 25.04, 23.12, 0.0, 49.57, 0.0])
"""A row that a dozen models of that board share: what constant or NaN outputs give."""


MMLU_THREE_WAYS = {
    "llama-65b": (0.637, 0.488, 0.636),
    "falcon-40b": (0.571, 0.527, 0.558),
    "llama-30b": (0.583, 0.457, 0.584),
    "gpt-neox-20b": (0.256, 0.333, 0.262),
    "llama-13b": (0.471, 0.377, 0.47),
    "llama-7b": (0.339, 0.342, 0.351),
    "falcon-7b": (0.278, 0.35, 0.254),
    "RedPajama-INCITE-7B-Base": (0.275, 0.34, 0.269),
}
"""By HELM, by the harness of January 2023 and by the original code, as that leaderboard's authors published them."""


def contents(model: str, average: Any, values: Any, **more: Any) -> dict[str, Any]:
    row = {"fullname": model, "Model sha": "a" * 40, "Precision": "float16", "Average ⬆️": average}
    return row | dict(zip(COLUMNS, values, strict=True)) | more


def test_the_published_rows_keep_their_averages_and_ranks_and_a_broken_one_has_none(hub: Hub, tmp_path: Path) -> None:
    rows = [contents(name, *told) for name, told in reversed(PUBLISHED.items())]
    rows += [contents(f"acme/broken-{number}", *BROKEN) for number in range(12)]
    done = take(hub, write_lines(tmp_path / "in" / "contents.jsonl", rows))
    assert (done.counts["added"], done.refused, done.suites) == (18, [], ["open-llm-v1 1"])
    shown = board(hub, "open-llm-v1")
    whole = [name for name in PUBLISHED if name != "dolly-v2-3b"]
    assert [(row["rank"], row["model"], row["average"]) for row in shown["ranked"]] == [
        (place, name, PUBLISHED[name][0]) for place, name in enumerate(whole, start=1)
    ]
    assert {row["apart_because"] for row in shown["apart"]} == {"No score for TruthfulQA, so there is no average."}
    assert len(shown["apart"]) == 13
    with hub.reading() as session:
        row = session.exec(select(Evaluation).where(col(Evaluation.average).is_(None))).first()
    assert row is not None
    assert "broken run" in row.sentence


def test_one_benchmark_run_three_ways_is_three_boards_with_the_ranks_that_each_way_was_published_with(
    hub: Hub, tmp_path: Path
) -> None:
    ways = ("mmlu-helm", "mmlu-harness", "mmlu-original")
    (tmp_path / "suites").mkdir()
    for way in ways:
        part = '[[benchmarks]]\nname = "MMLU"\ntasks = ["mmlu"]\nparts = [{ task = "mmlu", metric = "acc" }]\n'
        head = f'name = "{way}"\nversion = "1"\ntitle = "MMLU"\nharness = "lm_eval 0.4.13"\n\n'
        (tmp_path / "suites" / f"{way}.toml").write_text(head + part)
    suites = load_suites(tmp_path / "suites")
    orders: list[list[str]] = []
    for place, way in enumerate(ways):
        told = {name: round(100 * row[place], 1) for name, row in MMLU_THREE_WAYS.items()}
        rows = [
            {"model": name, "Precision": "float16", "Average": value, "MMLU": value} for name, value in told.items()
        ]
        path = write_lines(tmp_path / way / "contents.jsonl", rows)
        done = import_board(hub.engine, suites, str(path), scratch=tmp_path / "cache", suite=way)
        assert (done.counts["added"], done.refused, done.suites) == (8, [], [f"{way} 1"])
        shown = board(replace(hub, suites=suites), way)["ranked"]
        best_first = sorted(told, key=lambda name: -told[name])
        assert [(row["rank"], row["model"], row["average"]) for row in shown] == [
            (rank, name, told[name]) for rank, name in enumerate(best_first, start=1)
        ]
        orders.append(best_first)
    assert [order[0] for order in orders] == ["llama-65b", "falcon-40b", "llama-65b"], "the way decides who is first"


def test_the_same_rows_as_parquet_are_the_same_board(hub: Hub, other: Hub, tmp_path: Path) -> None:
    rows = [contents(name, *told, **{"Chat Template": True, "#Params (B)": 7.2}) for name, told in PUBLISHED.items()]
    take(hub, write_lines(tmp_path / "lines" / "contents.jsonl", rows))
    (tmp_path / "packed").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "packed" / "contents.parquet")
    take(other, tmp_path / "packed")
    dates = ("submitted_at", "ended_at")
    first, again = board(hub, "open-llm-v1"), board(other, "open-llm-v1")
    for row in (*first["ranked"], *first["apart"], *again["ranked"], *again["apart"]):
        for name in dates:
            del row[name]
    del first["as_of"], again["as_of"]
    assert first == again
    assert first["ranked"][0]["parameters"] == 7_200_000_000


def test_rows_of_the_second_version_bring_their_raw_numbers(hub: Hub, tmp_path: Path) -> None:
    names = ("IFEval", "BBH", "MATH Lvl 5", "GPQA", "MUSR", "MMLU-PRO")
    row = {"fullname": "a/b", "Model sha": "b" * 40, "Precision": "bfloat16", "Average ⬆️": 35.0}
    row |= {"Type": "💬 : chat models (RLHF, DPO, IFT, ...)", "Submission Date": "2024-06-26", "Flagged": True}
    for place, name in enumerate(names):
        row |= {name: 10.0 + place * 10, f"{name} Raw": (20.0 + place) / 100}
    take(hub, write_lines(tmp_path / "contents.jsonl", [row]))
    found = board(hub, "open-llm-v2")["ranked"][0]
    assert (found["type"], found["engine"], found["average"]) == ("chat", "transformers", 35.0)
    assert found["benchmarks"]["MuSR"] == {"value": 50.0, "raw": pytest.approx(24.0), "stderr": None, "samples": 0}
    assert found["submitted_at"].startswith("2024-06-26")
    assert [flag["kind"] for flag in found["flags"]] == ["other"]


def test_what_makes_no_sense_is_refused_with_its_reason(hub: Hub, tmp_path: Path) -> None:
    good = PUBLISHED["01-ai/Yi-6B"]
    rows: list[Any] = [
        contents("acme/good", *good),
        contents("acme/good", *good),
        contents("acme/strange", *good, Precision="?"),
        contents("acme/better", 99.0, good[1]),
        contents("acme/huge", *good, **{"#Params (B)": "many"}),
        contents("../up", *good),
        contents("acme/far", 154.08, [value + 100 for value in good[1]]),
        contents("acme/date", *good, **{"Submission Date": "yesterday"}),
        contents("acme/vast", 10**400, good[1]),
    ]
    done = take(hub, write_lines(tmp_path / "contents.jsonl", rows))
    assert done.counts["added"] == 1
    told = [
        "there before",
        "no precision",
        "does not follow",
        "no number",
        "no name",
        "less than or equal",
        "isoformat",
        "too large",
    ]
    for refusal, reason in zip(done.refused, told, strict=True):
        assert reason in refusal.reason


@pytest.mark.parametrize("content", ["", "{}", "[1, 2]", '{"rows": 3}', "[" * 50_000, '{"fullname": "a/b"}'])
def test_a_file_that_is_no_board_is_refused_in_a_sentence(hub: Hub, tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(Refused, match="No published board was found"):
        take(hub, tmp_path / "x.json")


def test_a_table_of_some_hundred_bytes_cannot_take_all_memory(hub: Hub, tmp_path: Path) -> None:
    text = "a" * (1 << 20)
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, pyarrow.int32()), pyarrow.array([text]))
    bomb = tmp_path / "contents.parquet"
    parquet.write_table(pyarrow.table({"fullname": column}), bomb, compression="zstd", store_schema=False)
    assert bomb.stat().st_size < 4096
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(Refused, match=r"cannot be read as Parquet|of memory"):
        import_board(hub.engine, hub.suites, str(bomb), scratch=tmp_path, most_memory=64 << 20)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_results_of_the_first_version_are_added_up_by_the_suite(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "acme" / "m"
    numbers = {
        "harness|arc:challenge|25": {"acc": 0.4, "acc_norm": 0.44, "acc_norm_stderr": 0.01},
        "harness|hellaswag|10": {"acc_norm": 0.7},
        "harness|truthfulqa:mc|0": {"mc1": 0.2, "mc2": 0.41},
        "harness|winogrande|5": {"acc": 0.66},
        "harness|gsm8k|5": {"acc": 0.05},
        **{f"harness|hendrycksTest-subject_{place}|5": {"acc": 0.3 + place / 1000} for place in range(57)},
    }
    general = {"model_name": "acme/m", "model_sha": "c" * 40, "model_dtype": "torch.float16"}
    old = {"config_general": general, "results": {"harness|gsm8k|5": {"acc": 0.9}}}
    write_json(folder / "results_2023-08-01T10-00-00.000001.json", old)
    write_json(folder / "results_2023-09-01T10-00-00.000001.json", {"config_general": general, "results": numbers})
    request = {"model": "acme/m", "precision": "float16", "status": "FINISHED", "model_type": "🟢 : pretrained"}
    write_json(
        tmp_path / "requests" / "acme" / "m_eval_request_False_float16_Original.json",
        request | {"params": 6.9, "weight_type": "Original", "submitted_time": "2023-07-30T00:00:00Z"},
    )
    broken = {**numbers, "harness|truthfulqa:mc|0": {"mc1": float("nan"), "mc2": float("nan")}}
    nan = {"config_general": general | {"model_name": "acme/nan"}, "results": broken}
    write_json(tmp_path / "results" / "acme" / "nan" / "results_2023-09-01T10-00-00.json", nan)
    done = take(hub, tmp_path)
    assert (done.counts["added"], done.suites, done.refused) == (2, ["open-llm-v1 1"], [])
    shown = board(hub, "open-llm-v1")
    (row,) = shown["ranked"]
    values = {name: round(cell["value"], 6) for name, cell in row["benchmarks"].items()}
    expected = {"ARC": 44.0, "HellaSwag": 70.0, "TruthfulQA": 41.0, "WinoGrande": 66.0, "GSM8K": 5.0, "MMLU": 32.8}
    assert values == expected
    assert row["benchmarks"]["ARC"]["stderr"] == pytest.approx(1.0)
    assert (row["average"], row["type"], row["parameters"]) == (
        pytest.approx(sum(expected.values()) / 6), "pretrained", 6_900_000_000,
    )  # fmt: skip
    assert [row["model"] for row in shown["apart"]] == ["acme/nan"]


def test_plain_results_of_lm_eval_stand_on_the_board_of_the_suite_that_counts_them(hub: Hub, tmp_path: Path) -> None:
    results: dict[str, Any] = {}
    for benchmark in hub.suites["demo"].benchmarks:
        for part in benchmark.parts:
            results[part.task] = {
                f"{part.metric},{part.filter}": 0.75,
                f"{part.metric}_stderr,{part.filter}": 0.01,
                "alias": part.task,
            }
    record = {
        "results": results,
        "n-samples": {task: {"original": 100, "effective": 100} for task in results},
        "config": {"model": "vllm", "model_dtype": "bfloat16", "model_sha": "d" * 40, "limit": None},
        "model_name": "acme/m",
    }
    write_json(tmp_path / "acme__m" / "results_2026-01-01T00-00-00.000000.json", record)
    assert take(hub, tmp_path).suites == ["demo 1"]
    (row,) = board(hub)["ranked"]
    assert (row["engine"], row["benchmarks"]["Sums"]["samples"]) == ("vllm", 100)


def test_an_imported_row_is_no_plans_business_and_cannot_be_retried(hub: Hub, tmp_path: Path) -> None:
    rows = [contents(name, *told) for name, told in PUBLISHED.items()]
    take(hub, write_lines(tmp_path / "contents.jsonl", rows))
    with hub.writing() as session:
        assert session.exec(select(Evaluation).where(is_planned("open-llm-v1", "1"))).all() == []
        lacking = session.exec(select(Evaluation).where(col(Evaluation.average).is_(None))).one()
        assert lacking.id is not None
        assert lacking.state is EvaluationState.FINISHED
        with pytest.raises(WrongState, match="was imported"):
            jobs.retry(session, lacking.id, datetime.now(UTC))


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.parent if path.parent.name in ("in", "lines") else path


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
