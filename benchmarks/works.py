"""What is timed: benchmarks of open-llm-v1 with their own shots, and how many documents of each.

The documents are few because lm-eval's vLLM back end needs minutes for some dozen on a CPU; `--scale` multiplies them.
"""

from dataclasses import dataclass

from orchestrator import suites
from orchestrator.wire import Benchmark

SUITE = "open-llm-v1"


@dataclass(frozen=True)
class Work:
    """One row of the table: benchmarks that an engine answers in one start."""

    name: str
    benchmarks: tuple[Benchmark, ...]
    limit: int
    """Documents for each lm-eval task, at scale 1."""
    suite: str | None = None
    """The suite that the benchmarks are, when they are a whole one."""


def works() -> dict[str, Work]:
    """All works by name; their benchmarks are those of the suite, four subjects stand for MMLU's 57."""
    found = {benchmark.name: benchmark.as_wire() for benchmark in suites.load_suites(None)[SUITE].benchmarks}
    subjects = ("abstract_algebra", "astronomy", "high_school_us_history", "marketing")
    mmlu = found["MMLU"].model_copy(update={"tasks": tuple(f"mmlu_{subject}" for subject in subjects)})
    chosen = (
        Work("mmlu", (mmlu,), 4),
        Work("hellaswag", (found["HellaSwag"],), 6),
        Work("arc", (found["ARC"],), 6),
        Work("winogrande", (found["WinoGrande"],), 20),
        Work("truthfulqa", (found["TruthfulQA"],), 6),
        Work("gsm8k", (found["GSM8K"],), 16),
        Work(SUITE, tuple(found.values()), 1, suite=SUITE),
    )
    return {work.name: work for work in chosen}
