import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from workers.local.output import merge_results, sanitized, write_output
from workers.sheets import write_lines

ARC = {
    "results": {"arc": {"acc,none": 0.5}},
    "versions": {"arc": 1},
    "config": {"model": "hf", "limit": 10},
    "total_evaluation_time_seconds": "1.5",
}
GSM = {
    "results": {"gsm8k": {"exact_match,strict-match": 0.25}},
    "versions": {"gsm8k": 3},
    "config": {"model": "hf", "limit": 10},
    "total_evaluation_time_seconds": "2.0",
}


def test_results_of_two_benchmarks_become_one_record_as_of_one_run():
    assert merge_results([ARC, GSM]) == {
        "results": {"arc": {"acc,none": 0.5}, "gsm8k": {"exact_match,strict-match": 0.25}},
        "versions": {"arc": 1, "gsm8k": 3},
        "config": {"model": "hf", "limit": 10},
        "total_evaluation_time_seconds": "3.5",
    }


def test_files_lie_where_lm_eval_would_have_put_them(tmp_path: Path):
    for name, result in (("a", ARC), ("b", GSM)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(result))
        (task,) = result["results"]
        write_lines(folder / f"samples_{task}.jsonl.zst", [{"doc_id": 0}, {"doc_id": 1}])
    now = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    file = write_output(tmp_path / "out", "org/model", [tmp_path / "a", tmp_path / "b"], now=now)
    assert file == tmp_path / "out/org__model/results_2026-01-02T03-04-05.000006.json"
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "results_2026-01-02T03-04-05.000006.json",
        "samples_arc_2026-01-02T03-04-05.000006.jsonl",
        "samples_gsm8k_2026-01-02T03-04-05.000006.jsonl",
    ]
    samples = (file.parent / "samples_arc_2026-01-02T03-04-05.000006.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in samples] == [{"doc_id": 0}, {"doc_id": 1}]


@pytest.mark.parametrize("name", ["org/model", "/srv/models/x[1]", 'a"b:c*d?', "plain"])
def test_folder_names_are_lm_evals(name: str):
    utils = pytest.importorskip("lm_eval.utils", reason="lm-eval is not installed: its folder names are not compared")
    assert sanitized(name) == utils.sanitize_model_name(name)
