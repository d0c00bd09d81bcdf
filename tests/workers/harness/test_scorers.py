"""What counts as a change of how a task judges answers, read from source alone."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from workers.harness import scorers

JUDGE = "import yaml\nfrom .words import WORD\n\n\ndef judge(doc, results):\n    return {'acc': WORD in results[0]}\n"


def write(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content)
    return folder


def task(folder: Path, **config: Any) -> Any:
    """A task whose answers are judged by `utils.judge`, loaded as 0.4.10 loads it: its module is kept nowhere."""
    source = (folder / "utils.py").read_text().replace("from .words import WORD", "WORD = 'x'")
    names: dict[str, Any] = {}
    exec(compile(source, folder / "utils.py", "exec"), names)
    return SimpleNamespace(
        config=SimpleNamespace(process_results=names["judge"], output_type="generate_until", **config)
    )


def test_code_that_is_only_laid_out_anew_keeps_its_digest(tmp_path: Path) -> None:
    plain = 'def judge(doc, results):\n    return {"acc": 1}\n'
    dressed = (
        '"""Of a module."""\n\n\n# A remark.\ndef judge(doc: dict, results: list[str]) -> dict[str, int]:\n'
        "    '''Of a function.'''\n    return {\n        'acc': 1,  # always\n    }\n"
    )
    folder = write(tmp_path / "a", plain=plain, dressed=dressed, other=plain.replace("1", "2"))
    digests = [scorers.source_digest(folder / f"{name}.py") for name in ("plain", "dressed", "other")]
    assert digests[0] == digests[1] != digests[2]


def test_the_files_that_a_scorer_imports_beside_it_count_and_packages_are_told(tmp_path: Path) -> None:
    same = {"utils": JUDGE, "words": "WORD = 'yes'\n"}
    first, packages, draws = scorers.code_of(task(write(tmp_path / "a", **same)))
    assert packages.keys() == {"yaml"}
    assert packages["yaml"].startswith("PyYAML ")
    assert not draws
    assert scorers.code_of(task(write(tmp_path / "b", **same)))[0] == first
    assert scorers.code_of(task(write(tmp_path / "c", **{**same, "words": "WORD = 'no'\n"})))[0] != first


def test_packages_that_an_imported_one_requires_count_too(tmp_path: Path) -> None:
    utils = JUDGE.replace("import yaml", "import rouge_score")
    packages = scorers.code_of(task(write(tmp_path / "a", utils=utils, words="WORD = 'yes'\n"))).packages
    # rouge-score asks nltk for its words, and that asks regex.
    assert {"rouge_score", "nltk", "regex"} <= packages.keys()
    assert packages["nltk"].startswith("nltk ")
    data = scorers.code_of(task(write(tmp_path / "b", utils=JUDGE.replace("yaml", "datasets"), words="WORD = 1\n")))
    assert data.packages.keys() == {"datasets"}


@pytest.mark.parametrize("line", ["import random", "from numpy import random", "import numpy; numpy.random.seed"])
def test_a_scorer_that_draws_is_known_by_its_source(line: str, tmp_path: Path) -> None:
    utils = JUDGE.replace("import yaml", line)
    assert scorers.code_of(task(write(tmp_path / "a", utils=utils, words="WORD = 'yes'\n"))).draws


@pytest.mark.parametrize(
    "config", [{"filter_list": [{"name": "x"}]}, {"metric_list": [{"metric": "f1"}]}, {"repeats": 2}]
)
def test_what_a_task_is_configured_with_counts(config: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "a", utils=JUDGE, words="WORD = 'yes'\n")
    assert scorers.code_of(task(folder, **config))[0] != scorers.code_of(task(folder))[0]
