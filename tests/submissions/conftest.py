"""Fixtures: a hub, a site that answers in process or on a port, a browser, a stub of the Hub, model folders."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, sync_playwright
from starlette.testclient import TestClient

from submissions.context import Hub
from submissions.site import make_site
from tests.hub_stub import HubStub, running_hub, use_instead_of_the_hub
from tests.submissions.command import Command
from tests.submissions.factories import make_hub
from tests.tiny import build_tiny_model


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return make_hub(tmp_path / "data")


@pytest.fixture
def client(hub: Hub) -> Iterator[TestClient]:
    """Speaks to the site without a socket, as a browser on this machine would."""
    with TestClient(make_site(hub), base_url="http://127.0.0.1:8765", raise_server_exceptions=False) as made:
        yield made


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """URL of the site behind a real socket."""
    running = uvicorn.Server(uvicorn.Config(make_site(hub), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        thread.join(0.01)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join()


@pytest.fixture
def server(hub: Hub) -> Iterator[str]:
    with serving(hub) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("There is no Chromium on PATH: install it (apt-get install chromium).")
        pytest.skip("PAGES NOT TESTED IN A BROWSER: there is no Chromium on PATH")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield made
        made.close()


@pytest.fixture
def hf_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStub]:
    """A Hub of this test alone, with an empty cache."""
    with running_hub() as stub:
        use_instead_of_the_hub(stub, monkeypatch, tmp_path / "hf")
        yield stub


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a fault. Never change it: take `model` for that."""
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny", hidden=32, layers=1)


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model without a fault, for this test to spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "models" / "tiny"))


@pytest.fixture
def evalyard(server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("EVALYARD_URL", server)
    return Command(capsys)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """The command where no server runs."""
    monkeypatch.setenv("EVALYARD_URL", closed_url())
    return Command(capsys)


def closed_url() -> str:
    """An address where nothing answers."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def ok(answer: httpx.Response) -> httpx.Response:
    assert answer.is_success, answer.text
    return answer


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = answer.json()
    assert content["status"] == status
    return content
