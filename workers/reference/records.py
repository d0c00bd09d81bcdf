"""What the reference program is asked and what it measured: the records of its work file and of its last event."""

from typing import Any, Literal

from pydantic import Field

from orchestrator.wire import Benchmark, Frozen, Seeds

BackEnd = Literal["vllm", "hf"]


class ReferenceBenchmark(Benchmark):
    """One call of `simple_evaluate`."""

    limit: int | None = None
    """Documents for each lm-eval task."""
    chat_template: bool = False
    fewshot_as_multiturn: bool = True
    system_instruction: str | None = None


class ReferenceWork(Frozen):
    """Benchmarks for one process with one engine: a single one is lm-eval fresh, several are the baseline of speed."""

    back_end: BackEnd
    model_name: str
    model_folder: str
    """Local folder with config, tokenizer and safetensors."""
    dtype: str = "auto"
    benchmarks: tuple[ReferenceBenchmark, ...]
    batch_size: int | str | None = None
    """None is `auto` for vllm, 1 for hf."""
    context_limit: int | None = None
    """lm-eval's `max_length`; its own rule when None."""
    model_args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of lm-eval's model class; they win over what `back_ends.arguments` gives."""
    task_folders: tuple[str, ...] = ()
    """Folders with task files, beside lm-eval's own and the shipped one."""
    stock_tasks: bool | None = None
    """Whether lm-eval reads its own 14,000 task files, which takes 15 s; None where one of them is asked for."""
    seeds: Seeds = Seeds()


class BenchmarkMeasured(Frozen):
    name: str
    results: str
    """Folder with results.json and samples_*.jsonl.zst, in the score stage's layout."""
    requests: dict[str, int]
    """Instances by request type, repeats counted."""
    request_seconds: float
    """Inside the model's request methods: engine time, tokenisation and automatic batch size included."""
    encode_seconds: float
    """The part of `request_seconds` that tokenised."""
    total_seconds: float
    """Inside `simple_evaluate`, without the engine's start."""


class ReferenceDone(Frozen):
    back_end: BackEnd
    start_seconds: float
    """To construct lm-eval's model: imports of the engine, weights, warm-up."""
    benchmarks: tuple[BenchmarkMeasured, ...]
    total_seconds: float
    """From the first line of the program to the last result written; only Python's own start is missing."""
    peak_rss_bytes: int
    """Of this process and its living children, each at its own peak."""
    peak_gpu_bytes: int | None
    model_args: dict[str, Any]
    """As they were given to lm-eval's model class."""
    environment: dict[str, str]
    batch_size: int | str
    versions: dict[str, str]
    device: str

    @property
    def request_seconds(self) -> float:
        return sum(benchmark.request_seconds for benchmark in self.benchmarks)
