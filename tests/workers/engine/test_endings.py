import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire import FailureKind
from tests.workers.engine.factories import generate, score, write_sheet
from workers.engine.endings import refuse_endless
from workers.stage import StageFailure


def model(folder: Path, *, eos: Any = None, generation: Any = None, tokenizer: str | None = None) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"vocab_size": 200, "eos_token_id": eos}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": tokenizer}))
    return folder


def endless(tmp_path: Path, *, stop: tuple[str, ...] = (), **facts: Any) -> StageFailure:
    sheet = write_sheet(tmp_path / "sheet", [generate([1, 2], stop=stop)])
    with pytest.raises(StageFailure) as caught:
        refuse_endless(model(tmp_path / "model", **facts), [sheet])
    return caught.value


@pytest.mark.parametrize("facts", [{"eos": 200}, {"eos": 3, "generation": [777, -1]}])
def test_an_end_token_outside_the_vocabulary_is_the_config_s_fault(tmp_path: Path, facts: dict[str, Any]) -> None:
    failure = endless(tmp_path, stop=("\n",), **facts)
    assert failure.kind is FailureKind.CONFIG
    assert "200 tokens only" in failure.sentence


def test_no_end_token_at_all_is_told_where_no_stop_string_ends_the_text(tmp_path: Path) -> None:
    assert "names no end-of-sequence token" in endless(tmp_path).sentence


@pytest.mark.parametrize(
    "facts", [{"eos": 3}, {"generation": [3, 777]}, {"tokenizer": "</s>"}, {"eos": 777, "generation": 3}]
)
def test_one_end_token_that_exists_is_enough(tmp_path: Path, facts: dict[str, Any]) -> None:
    refuse_endless(model(tmp_path / "model", **facts), [write_sheet(tmp_path / "sheet", [generate([1, 2])])])


def test_a_base_model_without_end_token_may_generate_up_to_a_stop_string(tmp_path: Path) -> None:
    refuse_endless(model(tmp_path / "model"), [write_sheet(tmp_path / "sheet", [generate([1], stop=["\n"])])])


def test_scoring_asks_for_no_end_token(tmp_path: Path) -> None:
    refuse_endless(model(tmp_path / "model", eos=777), [write_sheet(tmp_path / "sheet", [score([1], [2])])])
