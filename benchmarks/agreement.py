"""Whether runs of `benchmarks.speed` gave the same answers: `python -m benchmarks.agreement FOLDER…`. See README.md.

Pairs the samples of Evalyard's first run of each work with those of lm-eval's back ends, as `evalyard parity` does.
"""

import argparse
from pathlib import Path

from benchmarks.works import SUITE, Work, works
from orchestrator import suites
from orchestrator.wire import Precision
from workers.reference.answers import Sample, read_samples
from workers.reference.parity import BenchmarkParity, compare

BACK_ENDS = ("vllm", "hf")
COLUMNS = (
    "work", "against", "documents", "log-likelihoods", "apart: mean", "largest", "choices changed", "texts equal",
    "metrics",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="what --out of benchmarks.speed was")
    parser.add_argument(
        "--dtype", type=Precision, default=Precision.BFLOAT16, help="as it was given to benchmarks.speed"
    )
    given = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |")
    print("| " + " | ".join("---" for _ in COLUMNS) + " |")
    for folder in given.folders:
        for work in works().values():
            for back_end in BACK_ENDS:
                ours, theirs = folder / work.name / "evalyard-0", folder / work.name / f"{back_end}-0"
                if ours.is_dir() and (theirs / "reference.json").is_file():
                    print(_row(work, back_end, pair(work, ours, theirs, precision=given.dtype)), flush=True)


def pair(work: Work, ours: Path, theirs: Path, *, precision: Precision) -> BenchmarkParity:
    """All samples of a work's two runs as one comparison; judged is what the suite counts."""
    counted = {
        (part.metric, part.filter)
        for benchmark in suites.load_suites(None)[SUITE].benchmarks
        if benchmark.name in {one.name for one in work.benchmarks}
        for part in benchmark.parts
    }
    return compare(work.name, _samples(ours), _samples(theirs), precision=precision, judged=counted)


def _samples(run: Path) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for folder in sorted({path.parent for path in run.rglob("samples_*.jsonl.zst")}):
        found |= read_samples(folder)
    return found


def _row(work: Work, back_end: str, found: BenchmarkParity) -> str:
    changed = len({(change.task, change.document) for change in found.changed})
    metrics = "; ".join(
        f"{one.metric} {one.value:.3f} / {one.reference:.3f} (p {one.mcnemar_p:.2f})"
        if one.mcnemar_p is not None
        else f"{one.metric} {one.value:.3f} / {one.reference:.3f}"
        for one in found.metrics
        if one.judged
    )
    cells = [
        work.name, back_end, str(found.documents), str(found.log_likelihoods),
        f"{found.mean_difference:.2g}" if found.log_likelihoods else "",
        f"{found.largest_difference:.2g}" if found.log_likelihoods else "",
        f"{changed} of {found.choices}" if found.choices else "",
        f"{found.texts_equal} of {found.texts}" if found.texts else "",
        metrics,
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
