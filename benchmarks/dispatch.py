"""What the scheduler costs: a large plan, and orders given out and answered for each second beside Celery's own rate.

    python -m benchmarks.dispatch [--evaluations 10000] [--workers 50] [--seconds 60] [--database-url postgresql://…]
    python -m benchmarks.dispatch --answer-seconds 5

`plan` is the pure function alone, on records that are loaded. Then, with the embedded Valkey, in one run:

    no-op Celery    messages from `send_task` to the end of an empty task, one process that sends and one that takes
    orders          a real control process, and scripted workers that answer each order: `benchmarks.scripted_workers`

An order is a claim in the database, a message to the worker, and its answer applied in the database with what follows.
`idle` is how long a free slot of a worker stood empty while a job for it was queued all along: by the hub's records,
from the end that it noted to the claim; and by the workers' clocks, from the answer sent to the order taken, which has
the journeys and the queues of both in it.

Workers that answer at once saturate the hub. That shows its rate, which is to be compared with Celery's, and `idle` is
then its backlog. With `--answer-seconds` there are no more orders than those slots ask for, each with its `started` and
its heartbeats: that shows how long a slot waits for its next job, and the rate is that of the slots.
"""

import argparse
import os
import random
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from sqlalchemy import Engine

from benchmarks.backlog import fill, orders, recorded_gaps, together, while_jobs_waited
from benchmarks.noop import noop_rate
from benchmarks.processes import cpu_seconds, embedded_broker, running
from benchmarks.scripted_workers import read_gaps
from orchestrator import db
from orchestrator.control import collect_rarely
from orchestrator.footprint import GIB, Footprint
from orchestrator.scheduling.places import Policy, QueuedJob, WorkerView
from orchestrator.scheduling.scheduler import plan
from orchestrator.wire import EngineFamily, Stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=10_000, help="queued before the first order")
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--answer-seconds", type=float, default=0.0, help="what an answer takes; 0: as fast as can be")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long orders are counted")
    parser.add_argument("--messages", type=int, default=3000, help="for the rate of no-op Celery")
    parser.add_argument("--database-url", default="", help="an empty PostgreSQL database; SQLite otherwise")
    parser.add_argument("--folder", type=Path, help="where to write, on the file system to measure")
    given = parser.parse_args()
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
    database_url = given.database_url or f"sqlite:///{folder / 'evalyard.db'}"
    engine = db.make_engine(database_url)
    db.migrate(engine)
    fill(engine, given.evaluations)
    with embedded_broker(folder) as url:
        noop, cpu = noop_rate(url, given.messages)
        print(f"no-op Celery: {noop:.0f} messages/s; {cpu * 1000:.2f} ms of CPU each in the process that takes them")
        environment = {
            "EVALYARD_DATA": str(folder),
            "EVALYARD_DATABASE_URL": database_url,
            "EVALYARD_BROKER_URL": url,
        }
        logs, gaps = [folder / "workers.log", folder / "control.log"], folder / "gaps"
        scripted = ["-m", "benchmarks.scripted_workers", str(given.workers), str(gaps)]
        scripted += ["--answer-seconds", str(given.answer_seconds)]
        with (
            running(*scripted, environment=environment, log=logs[0]),
            running("-m", "orchestrator.control", environment=environment, log=logs[1]) as control,
        ):
            wait_for_orders(engine, logs)
            start, before, used = time.monotonic(), orders(engine), cpu_seconds(control)
            time.sleep(given.seconds)
            sent = orders(engine) - before
            rate, cpu = sent / (time.monotonic() - start), (cpu_seconds(control) - used) / max(sent, 1)
        load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        answers = f"answer in {given.answer_seconds:g} s" if given.answer_seconds else "answer at once"
        print(f"orders: {rate:.0f}/s over {given.seconds:.0f} s, {given.evaluations:,} evaluations queued, ", end="")
        print(f"{given.workers} workers that {answers}, {engine.dialect.name}; {load}; ", end="")
        print(f"{rate / noop:.2f} of no-op Celery;")
        print(f"        {cpu * 1000:.1f} ms of CPU each in the control process; ", end="")
        print("in one transaction: " + ", ".join(f"{mean:.1f} {name}" for name, mean in together(engine).items()))
        for clock, found in (
            ("by the hub's records", recorded_gaps(engine)),
            ("by the workers' clocks", read_gaps(gaps)),
        ):
            show_idle(clock, while_jobs_waited(engine, found))
    engine.dispose()


def show_idle(clock: str, gaps: dict[str, list[float]]) -> None:
    for kind, seconds in gaps.items():
        if seconds:
            most = seconds[int(len(seconds) * 0.99)]
            print(f"idle, {clock}: {kind} {len(seconds):,} times, ", end="")
            print(f"median {median(seconds):.2f} s, 99 % below {most:.2f} s, longest {seconds[-1]:.2f} s", flush=True)


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


if __name__ == "__main__":
    main()
