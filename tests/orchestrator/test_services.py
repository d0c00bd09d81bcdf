import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.services import MOST_QUICK_DEATHS, Service, ServiceGivenUp, Services
from tests.services import processes_with, wait_until


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def services(clock: Clock, said: list[str], tmp_path: Path):
    made = Services(say=said.append, now=clock)
    yield made
    made.stop(hurry=lambda: True)
    assert processes_with(str(tmp_path)) == {}


def service(tmp_path: Path, program: str, **options) -> Service:
    return Service("test", (sys.executable, "-c", program), dict(os.environ), tmp_path / "test.log", **options)


def wait_for_death(made: Service) -> None:
    assert made.process is not None
    made.process.wait(20)


def test_a_process_that_dies_is_started_again_after_a_pause(services: Services, clock: Clock, tmp_path: Path, said):
    made = service(tmp_path, "raise SystemExit(7)")
    services.start(made)
    wait_for_death(made)
    first = made.process
    services.look()
    assert said == [f"The test process ended with code 7; starting it again in 1 s. Its log: {made.log}"]
    services.look()
    assert made.process is first
    clock.now += 1
    services.look()
    assert made.process is not first


def test_of_a_process_that_was_killed_it_is_said_where_to_look(services: Services, tmp_path: Path, said):
    made = service(tmp_path, "import os; os.kill(os.getpid(), 9)")
    services.start(made)
    wait_for_death(made)
    services.look()
    assert "ended by SIGKILL" in said[0]
    assert "dmesg" in said[0]


def test_a_process_that_keeps_dying_is_given_up_with_the_end_of_its_log(
    services: Services, clock: Clock, tmp_path: Path
):
    made = service(tmp_path, "print('no such setting'); raise SystemExit(1)")
    services.start(made)
    for _ in range(MOST_QUICK_DEATHS - 1):
        wait_for_death(made)
        services.look()
        clock.now += 10
        services.look()
    wait_for_death(made)
    with pytest.raises(ServiceGivenUp, match="no such setting"):
        services.look()


def test_a_process_that_lived_long_starts_with_a_clean_slate(services: Services, clock: Clock, tmp_path: Path):
    made = service(tmp_path, "raise SystemExit(1)")
    services.start(made)
    for _ in range(3 * MOST_QUICK_DEATHS):
        wait_for_death(made)
        clock.now += 60
        services.look()
        clock.now += 10
        services.look()
    assert made.quick_deaths == 0


def test_the_children_of_a_dead_process_are_buried_with_it(services: Services, tmp_path: Path):
    program = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    made = service(tmp_path, program)
    services.start(made)
    wait_for_death(made)
    assert len(processes_with(str(tmp_path))) == 1
    services.look()
    wait_until(lambda: not processes_with(str(tmp_path)), "the grandchild has ended")


def test_a_process_that_ignores_the_request_is_killed_after_its_grace(clock: Clock, tmp_path: Path, said):
    services = Services(say=said.append)
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    made = service(tmp_path, program, grace_seconds=0.3)
    services.start(made)
    wait_until(lambda: "up" in made.log.read_text(), "it ignores the signal")
    services.stop()
    assert processes_with(str(tmp_path)) == {}


def test_everything_ends_in_good_order_though_the_undertaker_was_killed(tmp_path: Path, said):
    services = Services(say=said.append)
    services._undertaker.kill()
    services._undertaker.wait()
    services.start(service(tmp_path, "import time; time.sleep(600)"))
    services.stop(hurry=lambda: True)
    assert processes_with(str(tmp_path)) == {}
