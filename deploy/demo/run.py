"""`make demo`: the whole system on this machine, two tiny models through it, and the board that comes out.

    python -m deploy.demo.run [--data DIR]      DEMO_EXIT=1: end when both models are on the board

It does nothing that `evalyard up` and `evalyard submit` do not do, and keeps what it makes: a second run shows the
board at once. Exit code 0 once both rows are on the board; 1, with the reason and the logs' ends, otherwise.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from deploy.demo import TRAINED, UNTRAINED, are_built
from orchestrator import system
from orchestrator.errors import EvalyardError
from orchestrator.narrator import Narrator, telling
from orchestrator.program import FIRST_SUBMISSION, program, program_for
from orchestrator.services import log_tail
from orchestrator.settings import read_settings
from submissions.cli.client import Client
from submissions.cli.output import answer, chat, state_line

SUITE = "demo"
LIMIT_SECONDS = 30 * 60.0
"""An evaluation of a tiny model takes a minute or two; a busy machine may take several times that."""
PAUSE_SECONDS = 1.0
FINAL = ("finished", "failed", "cancelled")


class DemoFailed(EvalyardError):
    """The demo did not come to its board, for the reason given."""


class Demo(threading.Thread):
    """Submits the models to a system that is up, and watches them; ends the system when something failed."""

    def __init__(self, models: Path, running: system.Running, *, ends: bool) -> None:
        super().__init__(daemon=True)
        self.models = models
        self.running = running
        self.client = Client(running.url)
        self.ends = ends
        self.failed = True

    def run(self) -> None:
        try:
            numbers = [self.submit(self.models / name) for name in (UNTRAINED, TRAINED)]
            self.watch(numbers)
            self.show_board()
            self.failed = False
        except EvalyardError as error:
            chat(f"\nThe demo failed: {error.sentence}")
            for log in sorted((self.running.data / "logs").glob("*.log")):
                chat(f"\nEnd of {log}:\n{log_tail(log)}")
        finally:
            if self.ends or self.failed:
                # The system runs in the main thread and ends as on Ctrl-C.
                os.kill(os.getpid(), signal.SIGTERM)

    def submit(self, model: Path) -> int:
        request = {"model": str(model), "suite": SUITE, "model_type": "pretrained"}
        answered = self.client.post("/evaluations", request)
        number = int(answered["evaluation"]["id"])
        chat(f"{program()} submit {model} --suite {SUITE}\n  {answered['message']}")
        if answered["evaluation"]["state"] in ("failed", "cancelled"):
            chat(f"  {self.client.post(f'/evaluations/{number}/retry')['message']}")
        return number

    def watch(self, numbers: list[int]) -> None:
        """Say how far the evaluations are until both have ended."""
        deadline = time.monotonic() + LIMIT_SECONDS
        narrator = Narrator(chat)
        while True:
            records = [self.client.get(f"/evaluations/{number}") for number in numbers]
            unfinished = [record for record in records if record["state"] not in FINAL]
            moving = [record["id"] for record in unfinished if not record["is_waiting"]]
            narrator.tell(
                {record["id"]: f"  {state_line(record)}" for record in records},
                at_work=next(iter(moving or [record["id"] for record in unfinished]), None),
            )
            if not unfinished:
                break
            if time.monotonic() > deadline:
                raise DemoFailed(f"after {LIMIT_SECONDS / 60:.0f} minutes it is still {records[-1]['state']}.")
            time.sleep(PAUSE_SECONDS)
        for record in records:
            if record["average"] is None:
                raise DemoFailed(why(record))

    def show_board(self) -> None:
        """The board as `evalyard board` prints it, and a look at whether the lead is where it must be."""
        url = self.running.url
        command = [sys.executable, "-m", "submissions.cli", "board", "--suite", SUITE]
        printed = subprocess.run(
            command, env=os.environ | {"EVALYARD_URL": url}, capture_output=True, text=True, timeout=120, check=False
        )
        answer(f"\n{printed.stdout or printed.stderr}")
        rows = {row["model"]: row for row in self.client.get("/board", suite=SUITE)["ranked"]}
        missing = [name for name in (UNTRAINED, TRAINED) if name not in rows]
        if missing:
            raise DemoFailed(f"{' and '.join(missing)} did not come on the board.")
        if rows[TRAINED]["average"] <= rows[UNTRAINED]["average"]:
            raise DemoFailed("the trained model does not lead, so a number on this board is wrong.")
        answer(
            f"Look around: {url}\n"
            f"Go on with a model of your own, on the Hub or in a folder, in another terminal:\n"
            f"  {program_for(url, self.running.data)} {FIRST_SUBMISSION}\n"
            f"Data stay in {self.running.data}; next time: make up"
        )
        if not self.ends:
            answer("Ctrl-C stops every process.")


def build_models(folder: Path) -> None:
    """Make the two models unless they are there, in a process of its own: torch's memory is free again after it.

    Raises:
        DemoFailed: they could not be built.
    """
    if are_built(folder):
        chat(f"The two models are there already: {folder}")
        return
    command = [sys.executable, "-u", "-m", "deploy.demo.models", str(folder)]
    with telling("Building two tiny models: one only initialised, one trained for about a minute.", chat) as say:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as building:
            assert building.stdout is not None
            for line in building.stdout:
                say(line.rstrip())
        if building.returncode:
            raise DemoFailed("the models could not be built: see above.")


def why(record: dict[str, Any]) -> str:
    """The reason of an evaluation without an average, with the end of the log of what failed."""
    parts = [f"evaluation {record['id']} of {record['model']} {record['state']}. {record['sentence']}"]
    for job in record["jobs"]:
        if job["state"] == "failed":
            what = f"{job['stage']} {job['benchmark']}".strip()
            parts.append(f"  {what}: {job['failure']}: {job['sentence']}\n{job['log_tail']}")
    return "\n".join(parts)


def free_port(preferred: int) -> int:
    """The preferred port, or 0 (any free one) when something else has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return 0
    return preferred


def main() -> int:
    parser = argparse.ArgumentParser(description="Evaluate two tiny models and show the board.")
    parser.add_argument("--data", type=Path, default=Path(".evalyard"), help="kept between runs")
    data = parser.parse_args().data.resolve()
    ends = os.environ.get("DEMO_EXIT", "") not in ("", "0")
    models = data / "demo-models"
    began = time.monotonic()
    demo: list[Demo] = []

    def begin(running: system.Running) -> None:
        demo.append(Demo(models, running, ends=ends))
        demo[0].start()

    try:
        settings = read_settings(data=data, port=free_port(read_settings(data=data).port))
        build_models(models)
        system.up(settings, say=chat, when_up=begin)
    except EvalyardError as error:
        chat(f"evalyard demo: {error.sentence}")
        return 1
    except KeyboardInterrupt:
        return 130
    chat(f"The demo ran for {time.monotonic() - began:.0f} s.")
    return 1 if not demo or demo[0].failed else 0


if __name__ == "__main__":
    sys.exit(main())
