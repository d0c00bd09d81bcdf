"""What a board page costs: a filtered, sorted page of a large board beside a plain SQL query, while results come in.

    python -m benchmarks.board [--models 10000] [--benchmarks 12] [--database-url postgresql://…]

The database is filled with finished evaluations of a suite made for it. Then, over HTTP from a server of its own:

    floor      the plain query: one page of rows by average with their scores, in this process, no page made of it
    page       every kind of board page, one reader at a time: server time, and bytes as compressed
    readers    the same pages for as many readers at once, each looking at a page for some seconds, while results are
               committed one by one; how soon a committed one is on the page
    chromium   how soon the page can be read in a browser on a slow laptop (see `benchmarks.chromium`)
    growth     taking in one new result, and comparing what its tie needs, on a tenth of the board and on all of it
"""

import argparse
import base64
import gzip
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

import httpx
import sqlalchemy
from sqlalchemy import Engine, insert, text
from sqlmodel import Session, col, func, select

from benchmarks import chromium
from orchestrator import db
from orchestrator.board import BoardRequest, Boards, arrange
from orchestrator.lifecycle import EvaluationState
from orchestrator.suites import Suite, load_suites
from orchestrator.tables import Evaluation, Event, Job, Outcome, Score, Submission
from orchestrator.wire import EngineFamily, Precision, Stage

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
TYPES = ("pretrained", "continuously-pretrained", "fine-tuned", "chat", "merge", "multimodal")
FAMILIES = ("Llama", "Qwen", "Mistral", "Gemma", "Phi", "Falcon", "Yi", "OLMo")
SIZES = (0.27, 0.5, 1.1, 1.5, 2.6, 3.8, 7.2, 8.0, 9.2, 13.0, 14.0, 27.0, 32.0, 34.4, 70.6, 141.0)
PAGES = (
    "",
    "sort=B03&order=down",
    "sort=date&order=down&page=7",
    "type=chat&type=merge&min=3&max=14",
    "q=llama;qwen @type:chat",
    "q=^org-1[0-9]/.*-(7|8)b",
    "hide=merged&hide=moe&precision=bfloat16&sort=parameters",
    "cols=rank&cols=model&cols=average&cols=B01&cols=B05&avg=visible&sort=average&order=down",
    "min=7&rank=dynamic&rows=100",
    "sort=licence&cols=rank&cols=model&cols=licence&cols=cost&cols=co2&cols=speed&page=40",
    "pin=5&pin=17&q=gemma",
    "sort=model&order=down&page=123",
)
TARGET_MILLISECONDS = 50.0
DOCUMENTS = 2000
"""Of each benchmark; 12 times as many are those of Open LLM Leaderboard v2."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--benchmarks", type=int, default=12)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--look", type=float, default=10.0, help="seconds that a reader looks at a page")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long there are readers")
    parser.add_argument("--rounds", type=int, default=20, help="how often each page is read by one reader")
    parser.add_argument("--views", type=int, default=10, help="how often each page is opened in Chromium")
    parser.add_argument("--no-chromium", action="store_true")
    parser.add_argument("--database-url", default="", help="an empty PostgreSQL database; SQLite otherwise")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(given, Path(folder))


def measure(given: argparse.Namespace, folder: Path) -> None:
    suite_file = write_suite(folder / "suites", given.benchmarks)
    suite = load_suites(suite_file.parent)["large"]
    url = given.database_url or f"sqlite:///{folder / 'evalyard.db'}"
    engine = db.make_engine(url)
    db.migrate(engine)
    tenth = given.models // 10
    fill(engine, suite, range(1, tenth + 1))
    show_growth(engine, suite)
    began = time.perf_counter()
    fill(engine, suite, range(count_evaluations(engine) + 1, given.models + 1))
    print(f"{engine.dialect.name}: {given.models} models × {given.benchmarks} benchmarks, ", end="")
    print(f"{count(engine, Score)} score rows, made in {time.perf_counter() - began:.0f} s")
    show_growth(engine, suite)  # at once: the machine's speed is to be the same
    environment = os.environ | {
        "EVALYARD_DATA": str(folder),
        "EVALYARD_DATABASE_URL": url,
        "EVALYARD_SUITES": str(suite_file.parent),
        "EVALYARD_PORT": "18765",
    }
    server = subprocess.Popen([sys.executable, "-m", "submissions.site"], env=environment)
    try:
        with httpx.Client(base_url="http://127.0.0.1:18765", timeout=120) as client:
            show_pages(client, engine, suite, rounds=given.rounds)
            if not given.no_chromium:
                show_views(rounds=given.views)
            show_readers(engine, suite, readers=given.readers, seconds=given.seconds, look=given.look)
    finally:
        server.terminate()
        server.wait()


def write_suite(folder: Path, benchmarks: int) -> Path:
    """A suite file with so many benchmarks, B01 and on."""
    folder.mkdir(parents=True)
    parts = [
        f'[[benchmarks]]\nname = "B{number:02}"\ntasks = ["arc_easy"]\n'
        f'parts = [{{ task = "arc_easy", metric = "acc", filter = "none" }}]\n'
        for number in range(1, benchmarks + 1)
    ]
    head = 'name = "large"\nversion = "1"\ntitle = "A large board"\nharness = "lm_eval 0.4.13"\n\n'
    path = folder / "large.toml"
    path.write_text(head + "\n".join(parts), encoding="utf-8")
    return path


def fill(engine: Engine, suite: Suite, numbers: range) -> None:
    """Finished evaluations of these numbers with plausible scores, the same at each call."""
    chance = random.Random(numbers.start)  # noqa: S311  # made-up scores
    for first in range(0, len(numbers), 500):
        add(engine, suite, numbers[first : first + 500], chance)


def add(engine: Engine, suite: Suite, numbers: Sequence[int], chance: random.Random) -> None:
    """These evaluations, in one transaction; each event is what makes a board read it."""
    submissions: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    jobs: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    for number in numbers:
        size = chance.choice(SIZES)
        skill = min(95.0, max(3.0, chance.gauss(20 + 14 * size**0.3, 8)))
        values = {one.name: min(99.0, max(0.0, chance.gauss(skill, 6))) for one in suite.benchmarks}
        at = NOW + timedelta(minutes=number)
        family = chance.choice(FAMILIES)
        ending = chance.choice(("it", "base", "dpo", "slerp"))
        model = f"org-{number % 311}/{family}-{chance.randint(1, 4)}-{size:g}b-{ending}-{number}"
        mixture = chance.random() < 0.05
        facts = {"active_parameters": int(size * 1e9 / (4 if mixture else 1))}
        submissions.append(
            {
                "id": number,
                "model": model,
                "revision": f"{chance.getrandbits(160):040x}",
                "precision": chance.choice((Precision.BFLOAT16, Precision.FLOAT16, Precision.FOUR_BIT)),
                "weight_type": "original",
                "model_type": chance.choice(TYPES),
                "chat_template": chance.random() < 0.5,
                "architecture": f"{family}ForCausalLM",
                "parameters": int(size * 1e9),
                "licence": chance.choice(("apache-2.0", "mit", "llama3.1", None)),
                "submitter": "local",
                "submitted_at": at,
                "facts": facts,
            }
        )
        average = sum(values.values()) / len(values)
        evaluations.append(
            {
                "id": number,
                "submission_id": number,
                "suite": suite.name,
                "suite_version": suite.version,
                "engine": EngineFamily.VLLM,
                "key": f"made-{number}",
                "state": EvaluationState.FINISHED,
                "sentence": "",
                "average": average,
                "created_at": at,
                "ended_at": at + timedelta(hours=1),
            }
        )
        jobs.append(
            {
                "id": number,
                "evaluation_id": number,
                "stage": Stage.INFER,
                "created_at": at,
                "result": {},
                "identity": {},
            }
        )
        cost = {"seconds": 900 * size, "device_seconds": 1200 * size, "tokens_computed": int(4e6)}
        common = {"evaluation_id": number, "task": "", "job_id": number, "attempt_id": "made", "samples": 1000}
        common |= {"filter": "", "created_at": at}
        for name, value in values.items():
            provenance = {"infer": {"cost": cost}, "engine_version": "0.32.0", "seeds": [0, 1234, 1234, 1234]}
            scores.append(
                common | {"benchmark": name, "metric": "value", "value": value, "stderr": 1.4, "provenance": provenance}
            )
            scores.append(
                common | {"benchmark": name, "metric": "raw", "value": value, "stderr": None, "provenance": {}}
            )
            outcomes.append({"evaluation_id": number, "benchmark": name, "strata": [answered(name, value, chance)]})
    events = [{"at": NOW, "evaluation_id": number, "name": "evaluation_moved", "details": {}} for number in numbers]
    with db.session(engine) as session:
        for table, rows in (
            (Submission, submissions),
            (Evaluation, evaluations),
            (Job, jobs),
            (Score, scores),
            (Outcome, outcomes),
            (Event, events),
        ):
            session.connection().execute(insert(table), rows)


def answered(benchmark: str, value: float, chance: random.Random) -> dict[str, Any]:
    """What each document of a benchmark came to: the easiest ones are right, but for one in eight that is otherwise."""
    odd = chance.getrandbits(DOCUMENTS) & chance.getrandbits(DOCUMENTS) & chance.getrandbits(DOCUMENTS)
    right = ((1 << int(value / 100 * DOCUMENTS)) - 1) ^ odd
    bits = base64.b64encode(right.to_bytes(DOCUMENTS // 8, "little")).decode()
    return {"documents": f"of {benchmark}", "count": DOCUMENTS, "weight": 100.0, "bits": bits}


def count(engine: Engine, table: type[Score]) -> int:
    with db.session(engine, read_only=True) as session:
        return session.exec(select(func.count(col(table.id)))).one()


def floor(engine: Engine, suite: Suite, page: int) -> float:
    """Seconds of the plain query for one page: the best rows by average, and their scores."""
    began = time.perf_counter()
    with Session(engine) as session:
        rows = session.connection().execute(
            text(
                "SELECT e.id, e.average, s.model, s.parameters, s.precision FROM evaluation e "
                "JOIN submission s ON s.id = e.submission_id WHERE e.suite = :suite AND e.suite_version = :version "
                "AND e.state = 'finished' AND s.model_type = 'chat' ORDER BY e.average DESC LIMIT 50 OFFSET :offset"
            ),
            {"suite": suite.name, "version": suite.version, "offset": 50 * page},
        )
        ids = [row[0] for row in rows]
        chosen = col(Score.evaluation_id).in_(ids), col(Score.task) == ""
        columns = (Score.evaluation_id, Score.benchmark, Score.metric, Score.value, Score.stderr)
        session.execute(sqlalchemy.select(*(col(one) for one in columns)).where(*chosen)).all()
    return time.perf_counter() - began


def show_pages(client: httpx.Client, engine: Engine, suite: Suite, *, rounds: int) -> None:
    first, whole = wait_for(client)
    print(f"after the start of the server: first answer {first:.2f} s, the board {whole:.2f} s")
    floors = [floor(engine, suite, number % 30) for number in range(5 + len(PAGES) * rounds)][5:]
    show("floor", floors)
    every: list[float] = []
    sizes: dict[str, int] = {}
    for number in range(rounds):
        for page in PAGES:
            began = time.perf_counter()
            answer = client.get(f"/?suite=large&{page}", headers={"accept-encoding": "gzip"})
            taken = time.perf_counter() - began
            answer.raise_for_status()
            if number:  # the first round makes the sorted lists
                every.append(taken)
            sizes[page] = len(gzip.compress(answer.content, 6))
    show("page", every)
    static = sum(len(gzip.compress(client.get(path).content)) for path in STATIC)
    print(f"first view: {(sizes[''] + static) / 1024:.0f} KiB compressed, of which the page {sizes[''] / 1024:.0f}")


def show_views(*, rounds: int) -> None:
    if chromium.find_chromium() is None:
        print("  chromium: there is none on PATH")
        return
    pages = [f"/?suite=large&{page}" for page in PAGES[:4]]
    views = chromium.look("http://127.0.0.1:18765", pages, rounds=rounds)
    first = [view for name, seen in views.items() if name.endswith(pages[0]) for view in seen]
    every = [view for seen in views.values() for view in seen]
    print("Chromium, 4 times slower, 10 Mbit/s, 40 ms, nothing in its cache, desk and phone:")
    show("readable, the first page", [view.readable for view in first])
    show("readable, every page", [view.readable for view in every])
    show("loaded, every page", [view.loaded for view in every])
    print(f"  largest first view as it came: {max(view.size for view in every) / 1024:.0f} KiB")


STATIC = ("/static/evalyard.css", "/static/board.css", "/static/board.js", "/static/icon.svg")


def show_readers(engine: Engine, suite: Suite, *, readers: int, seconds: float, look: float) -> None:
    times: list[float] = []
    late: list[float] = []
    ends = time.monotonic() + seconds
    lock = threading.Lock()

    def read(number: int) -> None:
        chance = random.Random(number)  # noqa: S311
        with httpx.Client(base_url="http://127.0.0.1:18765", timeout=120) as client:
            time.sleep(chance.uniform(0, look))
            while time.monotonic() < ends:
                began = time.perf_counter()
                client.get(f"/?suite=large&{chance.choice(PAGES)}").raise_for_status()
                with lock:
                    times.append(time.perf_counter() - began)
                time.sleep(chance.uniform(0.5, 1.5) * look)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(readers)]
    for thread in threads:
        thread.start()
    chance, added = random.Random(2), 0  # noqa: S311
    next_number = count_evaluations(engine) + 1
    with httpx.Client(base_url="http://127.0.0.1:18765", timeout=120) as client:
        while time.monotonic() < ends:
            add(engine, suite, [next_number + added], chance)
            began = time.perf_counter()
            found = client.get(f"/?suite=large&q=-{next_number + added}$").text
            late.append(time.perf_counter() - began)
            assert f"/evaluations/{next_number + added}" in found
            added += 1
            time.sleep(1)
    for thread in threads:
        thread.join()
    print(f"{readers} readers, a page every {look:g} s or so each, {added} results committed meanwhile:")
    show("page", times)
    show("result seen", late)


def show_growth(engine: Engine, suite: Suite) -> None:
    """Time to take in one result on the board as large as it is."""
    chance = random.Random(3)  # noqa: S311
    boards = Boards()
    boards.is_kept = True  # pairs are compared apart from reading, as by the web process's keeper
    with db.session(engine, read_only=True) as session:
        began = time.perf_counter()
        table = boards.read(session, suite, take_in_all=True)
        print(f"the whole board is read from the database in {time.perf_counter() - began:.2f} s", end="")
        began = time.perf_counter()
        boards.settle_ties(session, suite)
        print(f", its pairs are compared in {time.perf_counter() - began:.2f} s")
    number = count_evaluations(engine) + 1
    for page in PAGES:
        ask(table, page)
    taken: list[float] = []
    settled: list[float] = []
    for one in range(50):
        add(engine, suite, [number + one], chance)
        with db.session(engine, read_only=True) as session:
            began = time.perf_counter()
            table = boards.read(session, suite)
            ask(table, "")
            taken.append(time.perf_counter() - began)
            began = time.perf_counter()
            boards.settle_ties(session, suite)
            settled.append(time.perf_counter() - began)
    show(f"its pairs on {len(table)} rows", settled)
    print(f"  {'':28} mean {1000 * fmean(settled):6.1f} ms")
    show(f"one new result on {len(table)} rows", taken)


def ask(table: Any, page: str) -> None:
    pairs = [part.split("=", 1) for part in page.split("&") if part]
    arrange(table, BoardRequest.parse((name, value) for name, value in pairs), page_rows=50)


def count_evaluations(engine: Engine) -> int:
    with db.session(engine, read_only=True) as session:
        return session.exec(select(func.max(Evaluation.id))).one() or 0


def wait_for(client: httpx.Client) -> tuple[float, float]:
    """Seconds until the server answers, if only that it still reads the board, and until it shows that."""
    began, first = time.perf_counter(), 0.0
    while time.perf_counter() - began < 120:
        try:
            answer = client.get("/?suite=large")
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        first = first or time.perf_counter() - began
        if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
            answer.raise_for_status()
            return first, time.perf_counter() - began
    raise TimeoutError("The server shows no board after two minutes.")


def show(name: str, seconds: list[float]) -> None:
    if len(seconds) < 2:
        print(f"  {name:28} too few for figures: {len(seconds)}")
        return
    cuts = quantiles([1000 * one for one in seconds], n=100, method="inclusive")
    print(f"  {name:28} p50 {cuts[49]:7.1f} ms   p95 {cuts[94]:7.1f} ms   p99 {cuts[98]:7.1f} ms   n={len(seconds)}")


if __name__ == "__main__":
    main()
