"""`evalyard up` with real processes: it mends itself, refuses what cannot work, and leaves nothing behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from orchestrator.settings import read_settings
from orchestrator.system import worker_command, worker_environment
from orchestrator.valkey import free_port
from tests.services import processes_with, wait_until

pytestmark = pytest.mark.flow


def command(data: Path, port: int) -> list[str]:
    options = ["--data", str(data), "--port", str(port), "--engine", "scripted"]
    return [sys.executable, "-m", "submissions.cli", "up", *options]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EVALYARD_")}
    return kept | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"}


class System:
    def __init__(self, data: Path) -> None:
        self.data = data
        self.out = data.parent / "out.txt"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                command(data, 0),
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.out.read_text()

    @property
    def url(self) -> str:
        return (self.data / "url").read_text().strip()

    def wait_until_up(self) -> None:
        wait_until(lambda: (self.data / "url").exists() or self.process.poll() is not None, "it is up", seconds=90)
        assert self.process.poll() is None, self.said()

    def healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/v1/health", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def parts(self) -> dict[int, str]:
        """Processes of the system, itself left out."""
        found = processes_with(str(self.data))
        found.pop(self.process.pid, None)
        return found


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    started = System(tmp_path / "data")
    try:
        started.wait_until_up()
        yield started
    finally:
        if started.process.poll() is None:
            started.process.send_signal(signal.SIGINT)
        started.process.wait(60)
        wait_until(lambda: not started.parts(), "no process is left", seconds=10)


def run_once(data: Path, port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(data, port),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


def test_it_comes_up_mends_itself_and_ends_at_ctrl_c(system: System):
    assert system.healthy()
    assert f"Evalyard is up: {system.url}" in system.said()

    second = run_once(system.data, 0)
    assert second.returncode == 1
    assert "An Evalyard is up on" in second.stdout

    def site() -> int | None:
        log = str(system.data / "logs" / "web.log")
        return next((pid for pid in processes_with(log) if pid != system.process.pid), None)

    killed = site()
    assert killed
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: site() not in (None, killed) and system.healthy(), "the site is back", seconds=60)
    assert "The web process ended by SIGKILL" in system.said()

    system.process.send_signal(signal.SIGINT)
    assert system.process.wait(40) == 0
    assert system.parts() == {}
    assert not (system.data / "url").exists()


def test_nothing_outlives_it_even_when_it_is_killed(system: System):
    assert len(system.parts()) >= 5
    system.process.kill()
    system.process.wait()
    wait_until(lambda: not system.parts(), "every process has ended", seconds=10)


def test_the_brokers_password_is_for_this_user_alone_and_on_no_command_line(system: System):
    password = system.data / "broker" / "password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert stat.S_IMODE((system.data / "broker" / "valkey.conf").stat().st_mode) == 0o600
    secret = password.read_text()
    assert not any(secret in command for command in system.parts().values())
    assert not any(secret in log.read_text(errors="replace") for log in (system.data / "logs").iterdir())


def test_no_worker_is_told_of_the_database(tmp_path: Path):
    told = worker_environment(read_settings(data=tmp_path, broker_url="redis://unused"))
    assert "EVALYARD_BROKER_URL" in told
    assert not [name for name in told if "DATABASE" in name]


def test_workers_are_told_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVALYARD_CACHE", str(tmp_path / "cache"))
    told = worker_environment(read_settings(data=tmp_path, broker_url="redis://unused"))
    assert told["EVALYARD_CACHE"] == str(tmp_path / "cache")


def test_the_engine_worker_is_left_every_gpu_that_it_sees():
    assert "--slots" not in worker_command("engine"), "a number takes the first so many GPUs alone"
    assert "--slots" in worker_command("harness")


def test_a_port_in_use_is_refused_with_the_option_that_helps(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        refused = run_once(tmp_path / "data", taken.getsockname()[1])
    assert refused.returncode == 1
    assert "--port" in refused.stdout
    assert processes_with(str(tmp_path)) == {}


def test_a_data_folder_that_cannot_be_written_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    refused = run_once(tmp_path / "file" / "data", 0)
    assert refused.returncode == 1
    assert "cannot be written" in refused.stdout
    assert "--data" in refused.stdout
