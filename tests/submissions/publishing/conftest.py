"""A hub with some rows of every kind, a second one without any, and how both publish and import."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from orchestrator.board import BoardRequest, arrange
from orchestrator.board.export import as_records
from orchestrator.exchange.importer import Imported, import_board
from orchestrator.lifecycle import EvaluationState
from orchestrator.people import Visibility
from orchestrator.settings import HubSettings
from submissions.context import Hub
from submissions.publishing.board import Choices, Outcome, publish_boards
from tests.data_set_hub import TOKEN, DataSetHub, running_data_set_hub
from tests.submissions.factories import DEMO, NOON, add_evaluation, make_hub


def publish(hub: Hub, destination: object, *, check: bool = False, **choices: Any) -> Outcome:
    settings = HubSettings(**{**hub.settings.model_dump(), "publish_token": TOKEN})
    return publish_boards(settings, hub.engine, hub.suites, str(destination), choices=Choices(**choices), check=check)


def take(hub: Hub, source: object, **options: Any) -> Imported:
    return import_board(hub.engine, hub.suites, str(source), scratch=hub.settings.data / "cache", **options)


def board(hub: Hub, suite: str = "demo") -> dict[str, Any]:
    """The board as the API shows it, without what may differ between two hubs: numbers of rows, and the source."""
    with hub.reading() as session:
        shown = arrange(hub.boards.read(session, hub.suites[suite]), BoardRequest(), everything=True)
        found = as_records(shown)
    for row in (*found["ranked"], *found["apart"]):
        del row["evaluation"], row["imported_from"]
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def fill(hub: Hub) -> None:
    """Rows that are ranked, tied, apart, flagged, hidden, unfinished and cancelled."""
    suite = hub.suites["demo"]
    with hub.writing() as session:

        def add(name: str, average: float | None, minute: int, **facts: Any) -> None:
            values = {} if average is None else {key: average + place / 3 for place, key in enumerate(DEMO)}
            facts = {"values": values} | facts
            add_evaluation(session, suite, model=name, at=NOON + timedelta(minutes=minute), **facts)

        add("acme/first", 71.23456789, 1, model_type="chat", chat_template=True)
        add("acme/tied", 50.1, 2)
        add("acme/also-tied", 50.1, 3, stderr=None)
        add("Org/<b>name", 44.0, 4, licence="=cmd|' /C calc'!A0", facts={"active_parameters": 3})
        add("folder model", 33.3, 5, folder="/srv/models/folder model")
        add("acme/lacks", None, 6, values={"Letters": 12.5})
        add("acme/trial", 99.0, 7, limit=5)
        add("acme/private", 98.0, 8, visibility=Visibility.PRIVATE)
        add("acme/of-a-team", 97.0, 9, visibility=Visibility.TEAM, team="blue")
        add("acme/waits", None, 10, state=EvaluationState.QUEUED)
        add("acme/cancelled", None, 11, state=EvaluationState.CANCELLED)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data folders of a hub without and of one with rows: making one takes longer than copying it."""
    folder = tmp_path_factory.mktemp("hubs")
    make_hub(folder / "empty").engine.dispose()
    shutil.copytree(folder / "empty", folder / "filled")
    hub = make_hub(folder / "filled")
    fill(hub)
    hub.engine.dispose()
    return folder


@pytest.fixture
def hub(templates: Path, tmp_path: Path) -> Hub:
    return make_hub(Path(shutil.copytree(templates / "empty", tmp_path / "data")))


@pytest.fixture
def filled(templates: Path, tmp_path: Path) -> Hub:
    return make_hub(Path(shutil.copytree(templates / "filled", tmp_path / "data")))


@pytest.fixture
def other(templates: Path, tmp_path: Path) -> Hub:
    return make_hub(Path(shutil.copytree(templates / "empty", tmp_path / "other")))


@pytest.fixture
def data_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DataSetHub]:
    """A Hub of this test alone in place of the real one."""
    with running_data_set_hub() as made:
        monkeypatch.setattr(constants, "ENDPOINT", made.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        template = made.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield made
