"""Published to a data set repository of a local Hub and read back: as exactly as to a folder."""

import json
from pathlib import Path

import pytest

from orchestrator.errors import Refused
from orchestrator.exchange import publisher
from orchestrator.exchange.hub import HubDataset
from orchestrator.exchange.places import PlaceAway
from submissions.context import Hub
from tests.data_set_hub import TOKEN, DataSetHub
from tests.submissions.factories import DEMO, add_evaluation
from tests.submissions.publishing.conftest import board, files, publish, take
from tests.submissions.publishing.test_folder import hide_what_is_not_public

BOARD = "hf://datasets/acme/board"


def test_the_hub_has_what_a_folder_would_have_and_gives_the_same_board_back(
    filled: Hub, other: Hub, data_sets: DataSetHub, tmp_path: Path
) -> None:
    hide_what_is_not_public(filled)
    publish(filled, tmp_path / "out")
    done = publish(filled, BOARD, private=True)
    repository = data_sets.repositories["acme/board"]
    assert (repository.private, done.revision) == (True, repository.head)
    assert {name: content for name, content in repository.files.items() if name != ".gitattributes"} == files(
        tmp_path / "out"
    )
    taken = take(other, BOARD)
    assert (taken.counts["added"], taken.refused, taken.revision) == (7, [], repository.head)
    assert board(other) == board(filled)
    assert dict(take(other, BOARD).counts) == {"unchanged": 7}


def test_only_what_changed_is_committed_and_nothing_when_nothing_did(filled: Hub, data_sets: DataSetHub) -> None:
    publish(filled, BOARD)
    repository = data_sets.repositories["acme/board"]
    before = repository.head
    publish(filled, BOARD)
    assert repository.head == before
    with filled.writing() as session:
        add_evaluation(session, filled.suites["demo"], model="acme/new", values=DEMO)
    old = dict(repository.files)
    publish(filled, BOARD)
    assert len(repository.commits) == 3
    changed = {name for name, content in repository.files.items() if old.get(name) != content}
    assert len(changed) == 10, "two files of the row, tables and pages, and the manifest"


def test_a_publish_that_broke_off_between_commits_goes_on(
    filled: Hub, other: Hub, data_sets: DataSetHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(publisher, "BATCH_FILES", 5)
    data_sets.refuse_commits_after = 2
    with pytest.raises(PlaceAway, match="422"):
        publish(filled, BOARD)
    repository = data_sets.repositories["acme/board"]
    assert not json.loads(repository.files["evalyard.json"])["complete"]
    with pytest.raises(Refused, match="being published"):
        take(other, BOARD)
    data_sets.refuse_commits_after = None
    done = publish(filled, BOARD)
    assert done.published.unchanged == 10
    publish(filled, tmp_path / "out")
    assert {name: content for name, content in repository.files.items() if name != ".gitattributes"} == files(
        tmp_path / "out"
    )


def test_a_card_of_somebodys_is_left_alone_by_a_publish_that_goes_on_after_it_broke_off(
    filled: Hub, data_sets: DataSetHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    HubDataset("acme/board", token=TOKEN, scratch=tmp_path / "scratch").open(make=True)
    repository = data_sets.repositories["acme/board"]
    repository.add({**repository.files, "README.md": b"# Mine\n"}, "card")
    monkeypatch.setattr(publisher, "BATCH_FILES", 5)
    data_sets.refuse_commits_after = 2
    with pytest.raises(PlaceAway):
        publish(filled, BOARD)
    data_sets.refuse_commits_after = None
    done = publish(filled, BOARD)
    assert (repository.files["README.md"], done.published.left) == (b"# Mine\n", ["README.md"])


def test_who_publishes_at_the_same_time_is_told_so(filled: Hub, data_sets: DataSetHub, tmp_path: Path) -> None:
    publish(filled, BOARD)
    place = HubDataset("acme/board", token=TOKEN, scratch=tmp_path / "scratch")
    place.open()
    data_sets.repositories["acme/board"].add({"README.md": b"theirs"}, "in between")
    with pytest.raises(PlaceAway, match="Somebody else"):
        place.write({"a.json": b"{}"}, delete=[], message="ours")


def test_a_repository_of_somebody_else_is_left_alone_but_its_card_may_be_there(
    filled: Hub, data_sets: DataSetHub, tmp_path: Path
) -> None:
    place = HubDataset("acme/board", token=TOKEN, scratch=tmp_path / "scratch")
    place.open(make=True)
    repository = data_sets.repositories["acme/board"]
    repository.add({**repository.files, "README.md": b"# Mine\n"}, "card")
    done = publish(filled, BOARD)
    assert (repository.files["README.md"], done.published.left) == (b"# Mine\n", ["README.md"])
    place = HubDataset("acme/data", token=TOKEN, scratch=tmp_path / "scratch")
    place.open(make=True)
    data_sets.repositories["acme/data"].add({"train.parquet": b"PAR1"}, "data")
    with pytest.raises(Refused, match="not empty"):
        publish(filled, "hf://datasets/acme/data")


def test_a_wrong_token_and_a_missing_board_are_sentences_without_the_token(
    filled: Hub, data_sets: DataSetHub, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="EVALYARD_PUBLISH_TOKEN") as refused:
        HubDataset("acme/board", token="hf_wrong", scratch=tmp_path).open(make=True)
    assert "hf_wrong" not in str(refused.value)
    with pytest.raises(Refused, match="is not there"):
        take(filled, "hf://datasets/acme/none")
    with pytest.raises(Refused, match="no data set"):
        take(filled, "hf://models/acme/none")
