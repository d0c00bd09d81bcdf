"""The whole system on one machine, as `evalyard up` runs it: broker, web, control, a harness and an engine worker.

It starts processes and watches over them, and does no work of theirs. Only web and control are told of the database.
"""

import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO

import httpx
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlmodel import select

from orchestrator import db, valkey
from orchestrator.clusters.config import read_hub_clusters
from orchestrator.errors import EvalyardError
from orchestrator.notices.targets import read_hub_targets
from orchestrator.program import FIRST_SUBMISSION, program_for
from orchestrator.services import Service, Services, log_tail
from orchestrator.settings import PREFIX, HubSettings
from orchestrator.suite_versions import record_suites
from orchestrator.suites import load_suites
from orchestrator.tables import Worker

WORKERS = {"harness": "harness-1", "engine": "engine-1"}
"""Kind to name of the workers that are part of the system."""

START_SECONDS = 180.0
"""A cold machine may take a minute to import everything."""

SILENCE_SECONDS = 10.0
"""After this long without a word it says what it still waits for."""

WORKER_GRACE_SECONDS = 25.0

ROOT = Path(__file__).resolve().parent.parent
"""Folder of the packages, for a checkout that is not installed."""


class CannotStart(EvalyardError):
    """The system cannot start, for the reason given."""


@dataclass(frozen=True)
class Running:
    """A system that is up."""

    url: str
    data: Path
    seconds: float
    """From the command to the first heartbeat of every worker."""


def up(
    settings: HubSettings,
    *,
    kinds: Collection[str] = tuple(WORKERS),
    say: Callable[[str], None],
    when_up: Callable[[Running], None] = lambda running: None,
) -> int:
    """Run everything until Ctrl-C or SIGTERM; returns the exit code. Call it from the main thread.

    `kinds`: of the workers that are started; `say` takes lines for people; `when_up` is called once everything answers.

    Raises:
        CannotStart, SuiteError, SettingsError, DatabaseUnusable, ServiceGivenUp: with what to do next; nothing is left
            running.
    """
    began = time.monotonic()
    suites = load_suites(settings.suites)  # a mistake in a team's file is said before anything is made or started
    read_hub_clusters(settings)
    read_hub_targets(settings)
    stops = _Stops()
    with _hold(settings.data):
        settings = settings.model_copy(update={"port": _check_port(settings.host, settings.port)})
        engine = db.make_engine(settings.database_url)
        db.migrate(engine)
        with db.session(engine) as session:
            record_suites(session, suites.values(), now=datetime.now(UTC))
        with stops.caught():
            services = Services(say=say)
            address = settings.data / "url"
            try:
                before = _boots(engine)
                settings = _start(settings, services, kinds=kinds, say=say)
                url = f"http://{_reached_at(settings.host)}:{settings.port}"
                logs = settings.data / "logs"
                if _wait_until_up(url, engine, services, stops, logs, before=before, kinds=kinds, say=say):
                    address.write_text(url + "\n", encoding="utf-8")
                    for line in welcome(url, settings.data):
                        say(line)
                    when_up(Running(url, settings.data, time.monotonic() - began))
                while not stops.count:
                    services.look()
                    stops.wait(0.5)
            finally:
                address.unlink(missing_ok=True)
                with suppress(OSError):  # the terminal may be gone
                    say("Stopping: work in progress is sealed and goes on at the next start.")
                services.stop(hurry=lambda: stops.count > 1)
                engine.dispose()
    return 0


def harness_slots() -> int:
    """Harness stages at the same time: each takes a core and about 1 GB for as long as it runs."""
    return min(4, os.cpu_count() or 1)


def welcome(url: str, data: Path) -> tuple[str, ...]:
    """Where things are and what to do next."""
    return (
        f"Evalyard is up: {url}",
        f"Data and logs are in {data}. Ctrl-C stops every process.",
        "Next, in another terminal:",
        f"  {program_for(url, data)} {FIRST_SUBMISSION}",
    )


def _start(
    settings: HubSettings, services: Services, *, kinds: Collection[str], say: Callable[[str], None]
) -> HubSettings:
    """Start every process; returns the settings with the broker's address."""
    logs = settings.data / "logs"
    base = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    base["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), base.get("PYTHONPATH")]))
    base["PYTHONUNBUFFERED"] = "1"
    base["PYTHONSAFEPATH"] = "1"  # whatever lies in the folder that this was started from is not imported
    if not settings.broker_url:
        say("Starting the broker (embedded Valkey).")
        embedded = valkey.prepare(settings.data)
        services.start(Service("broker", embedded.command, {"PATH": base.get("PATH", "")}, logs / "broker.log"))
        if not embedded.wait(seconds=20, alive=lambda: services.alive("broker")):
            raise CannotStart(f"The embedded broker does not start. Its log says:\n{log_tail(logs / 'broker.log')}")
        settings = settings.model_copy(update={"broker_url": embedded.url})
    hub = base | hub_environment(settings)
    say(f"Starting control, the web site and {'two workers' if len(kinds) > 1 else 'a worker'}.")
    for name, module in (("control", "orchestrator.control"), ("web", "submissions.site")):
        services.start(Service(name, (sys.executable, "-m", module), hub, logs / f"{name}.log", rank=1))
    for kind in kinds:
        environment = base | worker_environment(settings)
        log, command = logs / f"{kind}.log", worker_command(kind)
        services.start(Service(f"{kind} worker", command, environment, log, grace_seconds=WORKER_GRACE_SECONDS, rank=2))
    return settings


def worker_command(kind: str) -> tuple[str, ...]:
    """How the worker of a kind is started; an engine worker takes every GPU that it sees, or has one slot on a CPU."""
    slots = ("--slots", str(harness_slots())) if kind == "harness" else ()
    return (sys.executable, "-m", "workers.app", kind, "--name", WORKERS[kind], *slots)


def hub_environment(settings: HubSettings) -> dict[str, str]:
    """Every setting of the hub as variables, for web and control; the token that may write is the command line's."""
    names = [name for name in type(settings).model_fields if name != "publish_token"]
    return {PREFIX + name.upper(): _as_text(settings, name) for name in names} | _own("TEST_")


def worker_environment(settings: HubSettings) -> dict[str, str]:
    """What a worker is told: broker, artifacts, engine and mirrors; never the database."""
    names = ("broker_url", "artifacts_url", "engine", "datasets", "models", "harnesses", "hub_token")
    told = {PREFIX + name.upper(): _as_text(settings, name) for name in names}
    scratch = {f"{PREFIX}WORKER_SCRATCH": str(settings.data / "scratch")}
    return scratch | _own("WORKER_") | _own("CACHE") | told


def _own(group: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(PREFIX + group)}


def _as_text(settings: HubSettings, name: str) -> str:
    value = getattr(settings, name)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return "" if value is None else str(value)


def _wait_until_up(
    url: str,
    engine: Engine,
    services: Services,
    stops: "_Stops",
    logs: Path,
    *,
    before: Mapping[str, str],
    kinds: Collection[str],
    say: Callable[[str], None],
) -> bool:
    """Wait until the site answers and every worker was heard of anew; False when asked to stop before.

    `before`: the workers' boots of before the start. No clock is asked: it may be set while they start.
    """
    began = said = time.monotonic()
    deadline = began + START_SECONDS
    waiting = {"web", *(WORKERS[kind] for kind in kinds)}
    while waiting and not stops.count:
        services.look()
        if "web" in waiting and _answers(url):
            waiting.discard("web")
        waiting -= {name for name, boot in _boots(engine).items() if boot != before.get(name)}
        if waiting and time.monotonic() > deadline:
            raise CannotStart(
                f"After {START_SECONDS:g} s these did not answer: {', '.join(sorted(waiting))}. "
                f"Their logs are in {logs}."
            )
        if waiting and time.monotonic() - said > SILENCE_SECONDS:
            said = time.monotonic()
            say(f"Still waiting for {', '.join(sorted(waiting))} ({said - began:.0f} s).")
        stops.wait(0.1 if waiting else 0.0)
    return not stops.count


def _boots(engine: Engine) -> dict[str, str]:
    """The process that each known worker was heard of as."""
    with db.session(engine, read_only=True) as session:
        return dict(session.exec(select(Worker.name, Worker.boot)).all())


def _reached_at(host: str) -> str:
    """The host's name in an address of this machine."""
    if host in ("0.0.0.0", "::"):  # noqa: S104  # compared, not listened on
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/v1/health", timeout=2.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _check_port(host: str, port: int) -> int:
    """The port itself if it is free, or a free one for 0."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotStart(
                f"Port {port} of {host} cannot be used ({error.strerror}). Another Evalyard may be up; "
                "choose another with --port, or --port 0 for any free one."
            ) from error
        return int(probe.getsockname()[1])


@contextmanager
def _hold(data: Path) -> Iterator[IO[bytes]]:
    """Hold the data folder: two systems on one would hand out the same work."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("ab")
    except OSError as error:
        raise CannotStart(
            f"The data folder {data} cannot be written ({error.strerror}). "
            "Choose another with --data or EVALYARD_DATA, or change its owner."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotStart(
                f"An Evalyard is up on {data} already. Stop it first, or choose another folder with --data."
            ) from error
        yield lock


class _Stops:
    """Counts requests to stop: the first ends the system, the second makes it hurry."""

    def __init__(self) -> None:
        self.count = 0

    def wait(self, seconds: float) -> None:
        """Sleep, but not past a request to stop."""
        deadline = time.monotonic() + seconds
        while not self.count and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Count SIGINT and SIGTERM instead of dying of them."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._take) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
