"""What Evalyard itself costs beside the engine: requests from a sheet to sealed responses, with the scripted engine.

    python -m benchmarks.overhead [--requests 100000 …] [--context 20] [--folder DIR]

Writes a sheet, then runs the infer stage as its supervisor would: a child process with the production feed, guard,
ledger, in-flight file and sealing. Requests are one-token continuations, four to a context. Prints

    requests/s      of the engine's time, from the first request fed to the last one sealed; depends on what else runs
    per CPU second  of all that the stage did, its start and reading the sheet's hashes included; hardly depends on it
    peak memory     of the stage; its growth a request is against a sheet of 1,000
"""

import argparse
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.wire import EngineFamily, InferDone, InferWork, Model, Precision
from workers import child
from workers.sheets import Loglikelihood, SheetInfo, loglikelihood_id, write_info, write_lines

CHOICES = 4
BASE_REQUESTS = 1000
"""A sheet so small that its peak memory is the program's own."""


def requests(count: int, context: int) -> Iterator[Loglikelihood]:
    for number in range(count):
        document, choice = divmod(number, CHOICES)
        ids = [document % 50_000, document // 50_000, *range(100, 98 + context)]
        yield Loglikelihood(loglikelihood_id(ids, [choice]), ids, [choice])


def write_sheet(folder: Path, count: int, context: int) -> Path:
    folder.mkdir(parents=True)
    write_lines(folder / "requests.jsonl.zst", requests(count, context))
    info = SheetInfo("overhead", "vllm", count, 0, 0, 0, context + 1, {}, {}, {})
    write_info(folder, info)
    return folder


def run(folder: Path, count: int, context: int) -> tuple[InferDone, float, int]:
    """The stage's record, its CPU seconds and its peak resident bytes."""
    work = InferWork(
        model=Model(name="overhead", revision="0", precision=Precision.FLOAT32),
        identity={},
        engine=EngineFamily.SCRIPTED,
        sheets={"overhead": str(write_sheet(folder / "sheet", count, context))},
    )
    before = children_seconds()
    process = child.start(work, folder / "out", log=folder / "log")
    peak = 0
    while process.running():
        process.events(timeout=0.05)
        peak = max(peak, peak_bytes(process.pid))
    outcome = process.outcome()
    if not isinstance(outcome.done, InferDone):
        raise SystemExit(f"{outcome.sentence}\n{outcome.log_tail}")
    return outcome.done, children_seconds() - before, peak


def peak_bytes(pid: int) -> int:
    """The kernel's own high-water mark, so that nothing is missed between two looks."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, action="append", help="size of the sheet; several times for several")
    parser.add_argument("--context", type=int, default=20, help="tokens of each context")
    parser.add_argument("--folder", type=Path, help="where to write, on the file system to measure")
    given = parser.parse_args()
    counts = [BASE_REQUESTS, *(given.requests or [100_000, 400_000])]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; contexts of {given.context} tokens, 4 choices each")
    print(f"{'requests':>10}  {'requests/s':>10}  {'per CPU second':>14}  {'peak memory':>11}  {'bytes/request':>13}")
    base = 0
    for count in counts:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            done, seconds, peak = run(Path(folder), count, given.context)
        base = base or peak
        grown = f"{(peak - base) / count:.0f}" if count != BASE_REQUESTS else ""
        rate, of_cpu = done.computed / done.seconds, count / seconds
        print(f"{count:>10,}  {rate:>10,.0f}  {of_cpu:>14,.0f}  {peak / 2**20:>7.0f} MiB  {grown:>13}", flush=True)


if __name__ == "__main__":
    main()
