"""What the scheduler costs: a large plan, and orders given out and answered for each second beside Celery's own rate.

    python -m benchmarks.dispatch [--evaluations 10000] [--workers 50] [--seconds 60] [--database-url postgresql://…]

`plan` is the pure function alone, on records that are loaded. Then, with the embedded Valkey, in one run:

    no-op Celery    messages from `send_task` to the end of an empty task, one process that sends and one that takes
    orders          a real control process, and scripted workers that answer each order at once: one process in which
                    Celery reads every worker's own queue, and each beats every 5 s

An order is a claim in the database, a message to the worker, and its answer applied in the database with what follows.
`idle` is how long a free slot of a worker stood empty while a job for it waited, by the hub's own records.
"""

import argparse
import bisect
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import redis
from sqlalchemy import Engine, func, insert
from sqlmodel import Session, col, select

from orchestrator import arrows, broker, db, valkey
from orchestrator.control import collect_rarely
from orchestrator.footprint import GIB, Footprint
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.scheduling.places import Policy, QueuedJob, WorkerView
from orchestrator.scheduling.scheduler import plan
from orchestrator.suites import load_suites
from orchestrator.tables import Attempt, Evaluation, Event, Job, Submission
from orchestrator.wire import (
    EngineFamily,
    EngineInfo,
    Heartbeat,
    InferDone,
    Order,
    Precision,
    PrepareDone,
    ScoreDone,
    ScoreValue,
    Stage,
    Update,
)

SUITE = "demo"
HARNESS_SLOTS = 4
INFO = EngineInfo(family=EngineFamily.SCRIPTED, version="1", device_type="cpu", device="scripted")
NOOP_TASK = "benchmark.noop"
NOOP_QUEUE = "benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=10_000, help="queued before the first order")
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long orders are counted")
    parser.add_argument("--messages", type=int, default=3000, help="for the rate of no-op Celery")
    parser.add_argument("--database-url", default="", help="an empty PostgreSQL database; SQLite otherwise")
    parser.add_argument("--folder", type=Path, help="where to write, on the file system to measure")
    parser.add_argument("--part", choices=["noop", "workers"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part == "noop":
        take_noops()
    elif given.part == "workers":
        work(given.workers)
    else:
        show_plan()
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            show_dispatch(given, Path(folder))


def show_plan(jobs: int = 100_000, hosts: int = 1000, rounds: int = 5) -> None:
    collect_rarely()  # as the control process does
    now = datetime.now(UTC)
    draw = random.Random(1)  # noqa: S311  # nothing secret is drawn
    needs = [Footprint(gib * GIB, 2e5, 64, 8) for gib in (1, 3, 14, 26, 65, 140, 280)]
    queued = [
        QueuedJob(
            id=number,
            evaluation=number,
            stage=Stage.INFER,
            engine=EngineFamily.VLLM,
            created_at=now - timedelta(seconds=draw.random() * 1e6),
            weights=str(draw.randrange(20_000)),
            need=draw.choice(needs),
            longest=draw.choice([2048, 4096]),
            requests=draw.randrange(100_000),
            suite="s",
            parameters=draw.choice([1 << 30, 1 << 33, 1 << 36]),
        )
        for number in range(jobs)
    ]
    workers = [
        WorkerView(
            name=f"engine-{number}",
            boot="b",
            kind="engine",
            slots=draw.choice([1, 2, 4, 8]),
            last_heartbeat=now,
            engine=EngineFamily.VLLM,
            device_type="cuda",
            device="a GPU",
            memory_bytes=draw.choice([24, 40, 80]) * GIB,
            weights=tuple(str(draw.randrange(20_000)) for _ in range(5)),
        )
        for number in range(hosts)
    ]
    taken = []
    for _ in range(rounds):
        start, used = time.perf_counter(), time.process_time()
        chosen = plan(queued, workers, Policy(), now)
        taken.append((time.perf_counter() - start, time.process_time() - used))
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"plan: {jobs:,} queued jobs, {hosts:,} workers, {len(chosen):,} chosen; {load}")
    for name, times in zip(("by the clock", "of CPU time"), zip(*taken, strict=True), strict=True):
        print(
            f"      {name}: best {min(times) * 1000:.0f} ms, median {median(times) * 1000:.0f} ms of {rounds}",
            flush=True,
        )


def show_dispatch(given: argparse.Namespace, folder: Path) -> None:
    engine = db.make_engine(given.database_url or f"sqlite:///{folder / 'evalyard.db'}")
    db.migrate(engine)
    fill(engine, given.evaluations)
    with embedded_broker(folder) as url:
        noop, cpu = noop_rate(url, given.messages)
        print(f"no-op Celery: {noop:.0f} messages/s; {cpu * 1000:.2f} ms of CPU each in the process that takes them")
        environment = {
            "EVALYARD_DATA": str(folder),
            "EVALYARD_DATABASE_URL": given.database_url or f"sqlite:///{folder / 'evalyard.db'}",
            "EVALYARD_BROKER_URL": url,
        }
        scripted = part("workers", "--workers", str(given.workers), environment=environment)
        logs = [folder / "workers.log", folder / "control.log"]
        with (
            running(scripted, log=logs[0]),
            running((["-m", "orchestrator.control"], environment), log=logs[1]) as control,
        ):
            wait_for_orders(engine, logs)
            start, before, used = time.monotonic(), orders(engine), cpu_seconds(control)
            time.sleep(given.seconds)
            sent = orders(engine) - before
            rate, cpu = sent / (time.monotonic() - start), (cpu_seconds(control) - used) / max(sent, 1)
        load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        kind = engine.dialect.name
        print(f"orders: {rate:.0f}/s over {given.seconds:.0f} s, {given.evaluations:,} evaluations queued, ", end="")
        print(f"{given.workers} workers, {kind}; {load}; {rate / noop:.2f} of no-op Celery;")
        print(f"        {cpu * 1000:.1f} ms of CPU each in the control process; ", end="")
        print("in one transaction: " + ", ".join(f"{mean:.1f} {name}" for name, mean in together(engine).items()))
        for name, gaps in idle_times(engine).items():
            if gaps:
                longest, most = max(gaps), gaps[int(len(gaps) * 0.99)]
                print(f"idle: {name} {len(gaps):,} times, 99 % below {most:.2f} s, longest {longest:.2f} s", flush=True)
    engine.dispose()


# Evaluations that wait


def fill(engine: Engine, count: int) -> None:
    """Evaluations of as many models, made in the last hours, with their jobs as intake makes them."""
    now = datetime.now(UTC)
    names = [benchmark.name for benchmark in load_suites(None)[SUITE].benchmarks]
    with db.session(engine) as session:
        connection = session.connection()
        made = {number: now - timedelta(seconds=count - number) for number in range(1, count + 1)}
        submissions = [
            Submission(
                id=number,
                model=f"org/m{number}",
                revision=f"{number:040x}",
                precision=Precision.BFLOAT16,
                submitter=f"person-{number % 20}",
                submitted_at=at,
            )
            for number, at in made.items()
        ]
        evaluations = [
            Evaluation(
                id=number,
                submission_id=number,
                suite=SUITE,
                suite_version="1",
                engine=EngineFamily.SCRIPTED,
                key=str(number),
                state=EvaluationState.QUEUED,
                created_at=at,
            )
            for number, at in made.items()
        ]
        connection.execute(insert(Submission), [one.model_dump() for one in submissions])
        connection.execute(insert(Evaluation), [one.model_dump() for one in evaluations])
        rows = []
        for number, at in made.items():
            for stage, state, parts in (
                (Stage.PREPARE, JobState.QUEUED, names),
                (Stage.INFER, JobState.BLOCKED, [""]),
                (Stage.SCORE, JobState.BLOCKED, names),
            ):
                rows += [
                    Job(
                        evaluation_id=number, stage=stage, benchmark=name, state=state, turn_at=at, created_at=at
                    ).model_dump(exclude={"id"})
                    for name in parts
                ]
        connection.execute(insert(Job), rows)


# Scripted workers


def work(count: int) -> None:
    """Answer orders at once, as `count` workers: four in five prepare and score, the others infer."""
    app = broker.make_app(os.environ["EVALYARD_BROKER_URL"], name="benchmark.workers")
    names = [f"harness-{number}" if number % 5 else f"engine-{number}" for number in range(count)]
    held: dict[str, set[str]] = defaultdict(set)
    boot = uuid.uuid4().hex

    @app.task(name=broker.ORDER_TASK, ignore_result=True, shared=False, bind=True)  # type: ignore[untyped-decorator]
    def answer(task: Any, payload: Any) -> None:
        worker = str(task.request.delivery_info["routing_key"]).removeprefix("worker.")
        order = broker.read(Order, payload)
        held[worker].add(order.attempt)
        broker.send_update(
            app,
            Update(attempt=order.attempt, worker=worker, at=datetime.now(UTC), event="completed", done=done_of(order)),
        )
        held[worker].discard(order.attempt)

    def beat() -> None:
        sender = broker.make_app(os.environ["EVALYARD_BROKER_URL"], name="benchmark.heart")
        while True:
            for name in names:
                harness = name.startswith("harness")
                broker.send_heartbeat(
                    sender,
                    Heartbeat(
                        worker=name,
                        boot=boot,
                        kind="harness" if harness else "engine",
                        at=datetime.now(UTC),
                        slots=HARNESS_SLOTS if harness else 1,
                        engine=None if harness else INFO,
                    ),
                )
            time.sleep(5)

    threading.Thread(target=beat, daemon=True).start()
    consume(app, [broker.worker_queue(name) for name in names])


def done_of(order: Order) -> PrepareDone | InferDone | ScoreDone:
    match order.work.stage:
        case Stage.PREPARE:
            identity = {"weights": order.work.model.revision}
            return PrepareDone(
                sheet=order.output, digest="d", requests=100, documents=25, truncated=0, longest=100,
                identity=identity, provenance={},
            )  # fmt: skip
        case Stage.INFER:
            return InferDone(
                computed=300, reused=0, seconds=1.0, total_seconds=2.0, tokens_computed=9000, tokens_reused=0,
                engine=INFO,
            )  # fmt: skip
        case Stage.SCORE:
            metric = "exact_match" if order.work.benchmark.name == "Sums" else "acc"
            value = ScoreValue(
                task=order.work.benchmark.tasks[0], metric=metric, filter="none", value=0.5, stderr=0.1, samples=25,
                higher_is_better=True,
            )  # fmt: skip
            return ScoreDone(results=order.output, scores=(value,), provenance={})


def take_noops() -> None:
    app = broker.make_app(os.environ["EVALYARD_BROKER_URL"], name="benchmark.noop")
    notes = redis.Redis.from_url(os.environ["EVALYARD_BROKER_URL"])

    @app.task(name=NOOP_TASK, ignore_result=True, shared=False)  # type: ignore[untyped-decorator]
    def noop(payload: Any) -> None:
        if payload["last"]:
            notes.set("benchmark:last", "1")

    consume(app, [NOOP_QUEUE])


def consume(app: Any, queues: list[str]) -> None:
    worker = app.Worker(
        pool="threads",
        concurrency=4,
        queues=queues,
        hostname="benchmark@evalyard",
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()


# Measuring


def noop_rate(url: str, messages: int) -> tuple[float, float]:
    """Messages for each second, from the first one sent to the end of the last one's task, once the taker runs; and
    the CPU seconds of the taker for each.
    """
    app = broker.make_app(url, name="benchmark.sender")
    notes = redis.Redis.from_url(url)

    def send(last: bool) -> None:
        app.send_task(NOOP_TASK, args=[{"last": last}], queue=NOOP_QUEUE, argsrepr="(…)")

    def wait() -> None:
        while not notes.get("benchmark:last"):
            time.sleep(0.002)
        notes.delete("benchmark:last")

    with running(part("noop", environment={"EVALYARD_BROKER_URL": url})) as taker:
        send(last=True)
        wait()
        start, used = time.monotonic(), cpu_seconds(taker)
        for number in range(messages):
            send(last=number == messages - 1)
        wait()
        return messages / (time.monotonic() - start), (cpu_seconds(taker) - used) / messages


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def orders(engine: Engine) -> int:
    with db.session(engine, read_only=True) as session:
        return session.exec(select(func.count()).select_from(Attempt)).one()


def together(engine: Engine) -> dict[str, float]:
    """How many moves of each kind share a transaction, on average: they have the same time."""
    names = {"claims": arrows.JOB_CLAIMED, "starts": arrows.JOB_STARTED, "ends": arrows.JOB_COMPLETED}
    found = {}
    with db.session(engine, read_only=True) as session:
        for word, name in names.items():
            statement = select(func.count(), func.count(func.distinct(Event.at))).where(Event.name == name)
            moves, moments = session.exec(statement).one()
            found[word] = moves / max(moments, 1)
    return found


def wait_for_orders(engine: Engine, logs: list[Path]) -> None:
    """Until work is under way in all stages.

    Raises:
        SystemExit: nothing moves; with the ends of the logs.
    """
    for _ in range(120):
        if orders(engine) > 500:
            return
        time.sleep(1)
    tails = "\n".join(log.read_text(encoding="utf-8", errors="replace")[-2000:] for log in logs)
    raise SystemExit(f"Hardly any orders were given out within two minutes.\n{tails}")


def idle_times(engine: Engine) -> dict[str, list[float]]:
    """For each kind of worker, sorted: seconds that a slot stood empty while a job for it waited all along."""
    with db.session(engine, read_only=True) as session:
        attempts = session.exec(
            select(Attempt.worker, Attempt.dispatched_at, Attempt.ended_at, Job.stage).join(
                Job, col(Job.id) == Attempt.job_id
            )
        ).all()
        empty = {kind: _without_waiting(session, kind) for kind in ("engine", "harness")}
    found: dict[str, list[float]] = {"engine": [], "harness": []}
    by_worker: dict[str, list[tuple[datetime, bool]]] = defaultdict(list)
    for worker, dispatched, ended, _ in attempts:
        by_worker[worker].append((dispatched, True))
        if ended is not None:
            by_worker[worker].append((ended, False))
    for worker, moments in by_worker.items():
        kind = worker.partition("-")[0]
        freed: deque[datetime] = deque()
        for at, begins in sorted(moments):
            if not begins:
                freed.append(at)
            elif freed:
                since = freed.popleft()
                if not _any_within(empty[kind], since, at):
                    found[kind].append(max((at - since).total_seconds(), 0.0))
    return {kind: sorted(gaps) for kind, gaps in found.items()}


def _without_waiting(session: Session, kind: str) -> list[datetime]:
    """Moments at which no job waited for this kind of worker."""
    stages = [Stage.INFER] if kind == "engine" else [Stage.PREPARE, Stage.SCORE]
    waiting = session.exec(
        select(func.count()).select_from(Job).where(col(Job.stage).in_(stages), Job.stage == Stage.PREPARE)
    ).one()
    moves = session.exec(
        select(Event.at, Event.name)
        .join(Job, col(Job.id) == Event.job_id)
        .where(col(Job.stage).in_(stages), col(Event.name).in_(["job_queued", "job_requeued", "job_claimed"]))
        .order_by(col(Event.at), col(Event.id))
    ).all()
    moments = []
    for at, name in moves:
        waiting += -1 if name == "job_claimed" else 1
        if waiting <= 0:
            moments.append(at)
    return moments


def _any_within(moments: list[datetime], since: datetime, until: datetime) -> bool:
    position = bisect.bisect_left(moments, since)
    return position < len(moments) and moments[position] <= until


# Processes


def part(name: str, *more: str, environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    return ["-m", "benchmarks.dispatch", "--part", name, *more], environment


@contextmanager
def running(command: tuple[list[str], dict[str, str]], log: Path | None = None) -> Iterator[int]:
    """A Python program of this environment, ended at the end of the block; its process id."""
    arguments, extra = command
    out = log.open("wb") if log else subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, *arguments], env=os.environ | extra, stdout=out, stderr=out)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def embedded_broker(folder: Path) -> Iterator[str]:
    made = valkey.prepare(folder)
    process = subprocess.Popen(made.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if not made.wait(seconds=30, alive=lambda: process.poll() is None):
            raise SystemExit("The embedded broker did not start.")
        yield made.url
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
