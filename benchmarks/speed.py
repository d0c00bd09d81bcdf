"""Evalyard against lm-eval's own back ends: `python -m benchmarks.speed MODEL --out FOLDER`. See README.md here.

Runs alternate (lm-eval, Evalyard, lm-eval, …) and never overlap. Each row's ratio is of engine times, the best of the
rounds on either side; total times stand beside it.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from benchmarks import runners
from benchmarks.runners import Measured, RunFailed
from benchmarks.works import Work, works
from orchestrator.wire import EngineFamily
from workers.engine.info import engine_info

OURS = "evalyard"
BACK_ENDS = ("vllm", "hf")


def main() -> None:
    chosen = works()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="local model folder")
    parser.add_argument("--work", nargs="+", choices=chosen, default=list(chosen), help="rows of the table")
    parser.add_argument("--against", nargs="*", choices=BACK_ENDS, default=list(BACK_ENDS))
    parser.add_argument("--rounds", type=int, default=2, help="runs of each; the best engine time counts")
    parser.add_argument("--scale", type=int, default=1, help="multiplies the documents")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--hf-batch-size", default="auto", help="a number where `auto` runs out of memory")
    parser.add_argument("--out", type=Path, required=True, help="folder for logs and figures; must be new")
    given = parser.parse_args()
    given.out.mkdir(parents=True)

    rows: list[tuple[Work, dict[str, list[Measured]]]] = []
    for name in given.work:
        work = chosen[name]
        runs = measure(
            given.model.resolve(),
            work,
            against=given.against,
            rounds=given.rounds,
            limit=work.limit * given.scale,
            dtype=given.dtype,
            hf_batch_size=given.hf_batch_size,
            out=given.out / name,
        )
        rows.append((work, runs))
        record = {name: [asdict(run) for run in found] for name, found in runs.items()}
        (given.out / f"{name}.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
        print(f"\n{given.model.name}, {given.dtype}, {engine_info(EngineFamily.VLLM).device}\n", file=sys.stderr)
        print("\n".join(table(rows, scale=given.scale)), flush=True)


def measure(
    model: Path,
    work: Work,
    *,
    against: Iterable[str],
    rounds: int,
    limit: int,
    dtype: str,
    hf_batch_size: str,
    out: Path,
) -> dict[str, list[Measured]]:
    """The measured runs of one work by who ran it, one after the other in turn."""
    runs: dict[str, list[Measured]] = {}
    for round_ in range(rounds):
        for name in (OURS, *against):
            folder = out / f"{name}-{round_}"
            try:
                run = _runner(name, hf_batch_size=hf_batch_size)(model, work, limit=limit, dtype=dtype, folder=folder)
            except RunFailed as failed:
                print(f"{work.name}: {name} gave no figure: {failed}", file=sys.stderr, flush=True)
                continue
            runs.setdefault(name, []).append(run)
            print(
                f"{work.name}: {name}, round {round_ + 1} of {rounds}: {run.engine_seconds:.1f} s of engine time, "
                f"{run.total_seconds:.1f} s in all",
                file=sys.stderr,
                flush=True,
            )
    return runs


def _runner(name: str, *, hf_batch_size: str) -> Callable[..., Measured]:
    match name:
        case "vllm":
            return functools.partial(runners.lm_eval, back_end=name, batch_size="auto")
        case "hf":
            return functools.partial(runners.lm_eval, back_end=name, batch_size=hf_batch_size)
        case _:
            return runners.evalyard


def table(rows: Iterable[tuple[Work, dict[str, list[Measured]]]], *, scale: int) -> list[str]:
    """Markdown lines: for each work engine seconds (total) of everyone, and how many times faster Evalyard's are."""
    lines = [
        "| work | documents a task | Evalyard | lm-eval vllm | lm-eval hf | × vllm | × hf | tokens reused | memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for work, runs in rows:
        if OURS not in runs:
            continue
        best = {name: min(found, key=lambda run: run.engine_seconds) for name, found in runs.items()}
        ours = best[OURS]
        prompt = (ours.tokens_computed or 0) + (ours.tokens_reused or 0)
        cells = [work.name, str(work.limit * scale)]
        cells += [_seconds(best.get(name)) for name in (OURS, *BACK_ENDS)]
        cells += [_ratio(best.get(name), ours) for name in BACK_ENDS]
        cells.append(f"{(ours.tokens_reused or 0) / prompt:.0%}" if prompt else "")
        cells.append(" / ".join(f"{best[name].peak_bytes / 2**30:.1f}" for name in (OURS, *BACK_ENDS) if name in best))
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines.append("Seconds of engine time (seconds in all); memory in GiB of the largest process, in the same order.")
    return lines


def _seconds(run: Measured | None) -> str:
    return "" if run is None else f"{run.engine_seconds:.1f} ({run.total_seconds:.0f})"


def _ratio(other: Measured | None, ours: Measured) -> str:
    return "" if other is None else f"{other.engine_seconds / ours.engine_seconds:.2f}"


if __name__ == "__main__":
    main()
