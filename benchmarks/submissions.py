"""What submitting costs: many at once, few distinct, into a database that holds a great many.

    python -m benchmarks.submissions [--submissions 100000] [--open 500] [--postgresql]

Over HTTP, from a server of its own; the models come from a local mirror, so that the Hub's part is the reading of small
files:

    starting  right after the start of the server, while it still reads its board: how long new ones take, and the board
    alone     one submission after the other, new ones and ones that are there already: milliseconds of each
    at once   1,000 submissions of 100 distinct models at the same moment: exactly 100 evaluations must come of it, and
              each of the rest must be told which one it duplicates
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, insert
from sqlmodel import SQLModel, col, func, select

from orchestrator import db
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.suites import load_suites
from orchestrator.tables import Evaluation, Event, Job, Submission
from orchestrator.wire import EngineFamily, Precision, Stage

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
BATCH = 5000
TARGET_MILLISECONDS = 100.0
PORT = 18766
STARTING = 20
"""Submissions while the server still reads its board."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--submissions", type=int, default=100_000, help="how many the database holds")
    parser.add_argument("--open", type=int, default=500, help="how many of them wait")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--models", type=int, default=100, help="how many of the requests are distinct")
    parser.add_argument("--alone", type=int, default=60, help="of each kind, one after the other")
    parser.add_argument("--postgresql", action="store_true", help="an embedded server; SQLite otherwise")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, database(Path(folder), postgresql=given.postgresql) as url:
        return measure(given, Path(folder), url)


@contextmanager
def database(folder: Path, *, postgresql: bool) -> Iterator[str]:
    if not postgresql:
        yield f"sqlite:///{folder / 'evalyard.db'}"
        return
    from tests.postgres import running_server

    with running_server() as server:
        yield server.url("postgres")


def measure(given: argparse.Namespace, folder: Path, url: str) -> int:
    engine = db.make_engine(url)
    db.migrate(engine)
    began = time.perf_counter()
    fill(engine, given.submissions, waiting=given.open)
    print(f"{engine.dialect.name}: {given.submissions} submissions, {given.open} of them wait, ", end="")
    print(f"made in {time.perf_counter() - began:.0f} s", flush=True)
    names = write_models(folder / "mirror", given.models + given.alone + STARTING)
    environment = os.environ | {
        "EVALYARD_DATA": str(folder),
        "EVALYARD_DATABASE_URL": url,
        "EVALYARD_MODELS": str(folder / "mirror"),
        "EVALYARD_ENGINE": "scripted",
        "EVALYARD_PORT": str(PORT),
    }
    server = subprocess.Popen([sys.executable, "-m", "submissions.site"], env=environment)
    try:
        wait_for(server)
        with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=120, trust_env=False) as client:
            at_once, alone = names[: given.models], names[given.models : -STARTING]
            began = time.perf_counter()
            show("starting, new", [submit(client, name) for name in names[-STARTING:]])
            client.get("/", params={"suite": "demo"}).raise_for_status()
            print(f"starting: the board is there after {time.perf_counter() - began:.1f} s", flush=True)
            slow = 0.0
            for what in ("alone, new", "alone, there already"):
                spent = cpu_seconds(server.pid)
                slow = max(slow, show(what, [submit(client, name) for name in alone]))
                spent = (cpu_seconds(server.pid) - spent) / len(alone)
                print(f"{what}: {spent * 1000:.0f} ms of CPU each in the server")
        is_right = show_at_once(engine, at_once, given.requests)
    finally:
        server.terminate()
        server.wait()
    is_fast = slow < TARGET_MILLISECONDS
    print(f"p95 of one submission {slow:.0f} ms: {'within' if is_fast else 'ABOVE'} {TARGET_MILLISECONDS:.0f} ms")
    return 0 if is_fast and is_right else 1


def submit(client: httpx.Client, name: str) -> tuple[float, int, dict[str, Any]]:
    """Milliseconds, status and answer."""
    began = time.perf_counter()
    answer = client.post("/api/v1/evaluations", json={"model": name, "suite": "demo"})
    return (time.perf_counter() - began) * 1000, answer.status_code, answer.json()


def show_at_once(engine: Engine, names: Sequence[str], requests: int) -> bool:
    """A thread and a connection for each request, all let go at the same moment."""
    before = count(engine)
    gate = threading.Barrier(requests + 1)

    def one(number: int) -> tuple[float, int, dict[str, Any], str]:
        name = names[number % len(names)]
        with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=600, trust_env=False) as client:
            gate.wait()
            return *submit(client, name), name

    with ThreadPoolExecutor(requests) as pool:
        running = [pool.submit(one, number) for number in range(requests)]
        gate.wait()
        began = time.perf_counter()
        answers = [task.result() for task in running]
        seconds = time.perf_counter() - began
    show("at once, with waiting", [answer[:3] for answer in answers])
    statuses = Counter(status for _, status, _, _ in answers)
    numbers: dict[str, set[int]] = {}
    for _, status, answer, name in answers:
        if status in (200, 201):
            numbers.setdefault(name, set()).add(answer["evaluation"]["id"])
    made = count(engine) - before
    print(f"at once: {requests} requests in {seconds:.1f} s, {requests / seconds:.0f}/s; statuses {dict(statuses)}")
    print(f"at once: {made} evaluations of {len(names)} models; each model's requests name one: ", end="")
    is_one = all(len(found) == 1 for found in numbers.values()) and len(numbers) == len(names)
    print("yes" if is_one else "NO", flush=True)
    return is_one and made == len(names) and statuses == {201: len(names), 200: requests - len(names)}


def show(what: str, answers: Sequence[tuple[float, int, dict[str, Any]]]) -> float:
    """Prints the milliseconds; returns their 95th percentile."""
    taken = sorted(one[0] for one in answers)
    p95 = statistics.quantiles(taken, n=20)[-1]
    statuses = sorted({status for _, status, _ in answers})
    print(f"{what}: median {statistics.median(taken):.0f} ms, p95 {p95:.0f} ms, longest {taken[-1]:.0f} ms; {statuses}")
    return p95


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far: neighbours on the machine do not change it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(server: "subprocess.Popen[bytes]") -> None:
    while server.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{PORT}/api/v1/health", trust_env=False, timeout=5)
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("The server did not start.")


def write_models(mirror: Path, many: int) -> list[str]:
    """Distinct tiny models, `bench/m…`, in a mirror."""
    first = import_module("tests.tiny").build_tiny_model(mirror / "bench" / "m0000")
    for number in range(1, many):
        folder = mirror / "bench" / f"m{number:04}"
        shutil.copytree(first, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"benchmark_number": number}))
    return [f"bench/m{number:04}" for number in range(many)]


def fill(engine: Engine, submissions: int, *, waiting: int) -> None:
    """Submissions of the demo's suite with an evaluation and all jobs each; the last ones wait."""
    suite = load_suites()["demo"]
    stages = [(Stage.PREPARE, one.name) for one in suite.benchmarks]
    stages += [(Stage.INFER, ""), *((Stage.SCORE, one.name) for one in suite.benchmarks)]
    for start in range(1, submissions + 1, BATCH):
        numbers = range(start, min(start + BATCH, submissions + 1))
        rows: dict[type[SQLModel], list[dict[str, Any]]] = {Submission: [], Evaluation: [], Job: [], Event: []}
        for number in numbers:
            at = NOW - timedelta(minutes=submissions - number)
            is_open = number > submissions - waiting
            rows[Submission].append(
                {
                    "id": number,
                    "model": f"org-{number % 997}/model-{number % 20_011}",
                    "revision": f"{number:040x}",
                    "precision": Precision.BFLOAT16,
                    "parameters": 10**9,
                    "submitter": f"person-{number % 300}",
                    "submitted_at": at,
                    "facts": {"weight_bytes": 2 * 10**9},
                }
            )
            rows[Evaluation].append(
                {
                    "id": number,
                    "submission_id": number,
                    "suite": suite.name,
                    "suite_version": suite.version,
                    "engine": EngineFamily.SCRIPTED,
                    "key": f"made-{number}",
                    "state": EvaluationState.QUEUED if is_open else EvaluationState.FINISHED,
                    "sentence": "",
                    "created_at": at,
                    "ended_at": None if is_open else at + timedelta(hours=1),
                }
            )
            for stage, benchmark in stages:
                state = JobState.QUEUED if stage is Stage.PREPARE else JobState.BLOCKED
                facts = {"evaluation_id": number, "stage": stage, "benchmark": benchmark, "created_at": at}
                facts |= {
                    "state": state if is_open else JobState.COMPLETED,
                    "turn_at": at,
                    "result": {},
                    "identity": {},
                }
                rows[Job].append(facts)
            rows[Event].append({"at": at, "evaluation_id": number, "name": "evaluation_created", "details": {}})
        with db.session(engine) as session:
            for table, made in rows.items():
                session.connection().execute(insert(table), made)
    if engine.dialect.name == "postgresql":
        with db.session(engine) as session:
            for table in (Submission, Evaluation):
                name = table.__tablename__
                newest = select(func.max(table.id))
                session.exec(select(func.setval(f"{name}_id_seq", newest.scalar_subquery())))


def count(engine: Engine) -> int:
    with db.session(engine, read_only=True) as session:
        return session.exec(select(func.count(col(Evaluation.id)))).one()


if __name__ == "__main__":
    sys.exit(main())
