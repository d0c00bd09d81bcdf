"""What crosses between the hub and its workers: small, frozen, versioned messages, always JSON.

`Order` and `Forecast` go out; `Update` and `Heartbeat` come back. The part of an order that a stage program needs is
its `Work`; the same record, with artifact keys replaced by local paths, is the file that
`python -m workers.….prepare`, `infer` and `score` read, so a stage can be run by hand. This module imports nothing of
Evalyard.
"""

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1
"""Version of every message here; a receiver refuses a message with another one."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage(StrEnum):
    PREPARE = "prepare"
    INFER = "infer"
    SCORE = "score"
    CANARY = "canary"
    """Of the hub's jobs alone: inference of a canary's sample. Its order's work is an `InferWork` like any other."""

    @property
    def needs_engine(self) -> bool:
        """Whether engine workers do it; harness workers do the others."""
        return self is Stage.INFER or self is Stage.CANARY


class FailureKind(StrEnum):
    """Why an attempt failed. Each kind has a next step for the submitter in `orchestrator.errors`."""

    DOWNLOAD = "download"  # the Hub or a mirror could not be reached (transient)
    GATED = "gated"  # the repository may not be read with the token at hand
    CONFIG = "config"  # config.json is missing or cannot be read
    TOKENIZER = "tokenizer"
    CHAT_TEMPLATE = "chat_template"
    REMOTE_CODE = "remote_code"  # the model only loads with its own Python code
    ARCHITECTURE = "architecture"  # the engine does not know it
    WEIGHTS = "weights"  # no safetensors, incomplete or damaged
    PRECISION = "precision"
    OUT_OF_MEMORY = "out_of_memory"
    INVALID_OUTPUT = "invalid_output"  # NaN, infinite, constant or empty answers: never a score
    DATASET = "dataset"  # a benchmark's dataset is missing or gated
    TASK_REFUSED = "task_refused"  # needs remote code, runs generated code in its own way, or is multimodal
    SUITE = "suite"  # the suite file is gone, or is another version than the evaluation's
    HARNESS = "harness"  # lm-eval raised
    SHEET = "sheet"  # a request sheet is damaged, or of another harness or model than the rest
    RESPONSES = "responses"  # sealed responses are missing or damaged
    ENGINE = "engine"  # the engine crashed or was killed (transient)
    TIMEOUT = "timeout"
    NODE_LOST = "node_lost"  # no heartbeat until the lease ended (transient)
    STORAGE = "storage"  # the artifact store or the worker's disk failed (transient)
    TOO_LARGE = "too_large"  # more bytes than the worker keeps of downloaded weights
    SANDBOX = "sandbox"  # a benchmark runs generated code, and this host has no working sandbox for it
    CANCELLED = "cancelled"


class Precision(StrEnum):
    """What the weights are loaded as; `auto` is resolved at submission and never appears here."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    EIGHT_BIT = "8bit"
    FOUR_BIT = "4bit"
    GPTQ = "gptq"


class EngineFamily(StrEnum):
    VLLM = "vllm"
    TRANSFORMERS = "transformers"
    SCRIPTED = "scripted"

    @property
    def rules(self) -> Literal["vllm", "hf"]:
        """The lm-eval back end whose encoding, truncation and windows the sheet follows."""
        return "hf" if self is EngineFamily.TRANSFORMERS else "vllm"


class Model(Frozen):
    """Which weights, at which commit, loaded how."""

    name: str
    """`org/name`, or the last part of a local folder's path; data, never a path by itself."""
    revision: str
    """Commit sha on the Hub, or `sha256-…`, the digest of a local folder's files."""
    folder: str | None = None
    """Absolute path of a local folder (or of a mirror's); None for a Hub repository."""
    precision: Precision
    weight_type: Literal["original", "adapter"] = "original"
    base_name: str | None = None
    base_revision: str | None = None
    base_folder: str | None = None


class Seeds(Frozen):
    """lm-eval's four seeds, with lm-eval 0.4.13's defaults."""

    random: int = 0
    numpy: int = 1234
    torch: int = 1234
    fewshot: int = 1234


class Benchmark(Frozen):
    """One column of a suite as the harness needs it."""

    name: str
    """Column name, unique in the suite, e.g. `ARC`."""
    tasks: tuple[str, ...]
    """lm-eval task or group names."""
    num_fewshot: int | None = None
    """None leaves the shots that the task's own file gives."""
    gen_kwargs: dict[str, Any] = {}


class PrepareWork(Frozen):
    """Build the request sheet of one benchmark. Output: a sheet folder (`workers.sheets`)."""

    stage: Literal[Stage.PREPARE] = Stage.PREPARE
    model: Model
    model_folder: str | None = None
    """Local folder with config and tokenizer; the supervisor fills it in."""
    benchmark: Benchmark
    rules: Literal["vllm", "hf"]
    chat_template: bool = False
    fewshot_as_multiturn: bool = True
    system_instruction: str | None = None
    limit: int | None = None
    """Documents per lm-eval task; None means all. An evaluation with a limit is never ranked."""
    seeds: Seeds = Seeds()
    context_limit: int | None = None
    """Overrides the limit found in the model's config, in tokens."""
    task_folders: tuple[str, ...] = ()
    """Further folders with lm-eval task files, beside lm-eval's own and the shipped ones."""
    harness: str = ""
    """Code and version that must run this stage, e.g. `lm_eval 0.4.13`; empty: whichever the worker runs on."""


class SetAside(Frozen):
    """Requests that no engine is given any more: it died of them while it computed nothing else."""

    requests: tuple[str, ...]
    """Hashes; several where they share a context, which an engine computes as one."""
    cause: str
    """The sentence with which it died of them."""


class Spent(Frozen):
    """What an infer attempt has used so far, engines that died included: as they said it, up to their last seal."""

    seconds: float = 0.0
    """Engine time: from the first request fed to the last answered."""
    total_seconds: float = 0.0
    """From the start of each stage program to its end, loading included."""
    tokens_computed: int = 0
    tokens_reused: int = 0
    requests: int = 0
    """Requests answered and sealed."""


class InferWork(Frozen):
    """Compute the responses that sheets ask for and no segment holds yet. Output: segments (`workers.segments`)."""

    stage: Literal[Stage.INFER] = Stage.INFER
    model: Model
    model_folder: str | None = None
    """Local folder with config, tokenizer and weights; the supervisor fills it in."""
    identity: dict[str, Any]
    """The full model identity (`identity_digest` of it addresses the responses)."""
    engine: EngineFamily
    sheets: dict[str, str]
    """Benchmark name to its sheet: an artifact key on the wire, a folder in the work file."""
    known: tuple[str, ...] = ()
    """Segments that exist already: filled in by the supervisor with local files."""
    slice_index: int = 0
    slice_count: int = 1
    settings: dict[str, Any] = {}
    """Engine settings given by the operator; they override what the engine derives."""
    seal_seconds: float = 5.0
    hang_seconds: float = 600.0
    """How long the engine may take for one step before it is taken to hang."""
    attempt: str = ""
    footprint: int = 0
    """0 is the engine's full size; each level halves how much it computes at a time. This and what follows is what
    whoever runs the stage learnt from engines that died (`workers.recovery`); an order leaves it empty."""
    last: tuple[str, ...] = ()
    """Hashes that are answered after everything else."""
    alone: tuple[str, ...] = ()
    """Hashes that are answered at the very end, each context with nothing else in the engine."""
    set_aside: tuple[SetAside, ...] = ()
    restarts: tuple[str, ...] = ()
    """Why the stage was started again, a sentence each."""
    spent: Spent = Spent()
    """By the engines of this attempt that died."""


class ScoreWork(Frozen):
    """Turn responses into lm-eval's results for one benchmark. Output: a results folder (`workers.harness.score`)."""

    stage: Literal[Stage.SCORE] = Stage.SCORE
    model: Model
    model_folder: str | None = None
    benchmark: Benchmark
    sheet: str
    """The benchmark's sheet: an artifact key on the wire, a folder in the work file."""
    segments: tuple[str, ...] = ()
    """Segments to read, in name order: filled in by the supervisor with local files."""
    identity: dict[str, Any]
    task_folders: tuple[str, ...] = ()
    harness: str = ""
    """As in `PrepareWork`: a sheet is scored by the harness that built it."""


Work = Annotated[PrepareWork | InferWork | ScoreWork, Field(discriminator="stage")]


class EngineInfo(Frozen):
    """What computes on a worker; stored with each segment and each score."""

    family: EngineFamily
    version: str
    device_type: Literal["cpu", "cuda"]
    device: str
    """Name of the device as people know it, e.g. `NVIDIA H100 80GB HBM3` or the CPU's model name."""
    device_count: int = 1
    memory_bytes: int | None = None
    driver: str = ""
    """Version of the GPUs' driver, e.g. `570.86.15`; empty on a CPU, and where the worker did not say."""
    runtime: str = ""
    """What the engine computes with, e.g. `torch 2.13.0+cu130`; empty where there is none or it did not say."""


class Order(Frozen):
    """One attempt at one job."""

    version: int = VERSION
    attempt: str
    """Attempt id: the fence. Every update carries it, and only the current one is believed."""
    job: int
    evaluation: int
    work: Work
    devices: int = Field(default=1, ge=1)
    """GPUs that the attempt gets, the fewest of this worker's that hold the model; on a CPU 1."""
    lease_seconds: float
    timeout_seconds: float | None = None
    stall_seconds: float | None = None
    """How long the stage may say nothing before it is taken to hang."""
    output: str
    """Artifact prefix that only this attempt may write."""
    lent: str = ""
    """The submitter's own Hub token, where the model is read with it: in an envelope (`orchestrator.envelopes`) for
    this worker's process, about this attempt. No part of the work, so no stage program sees it."""


class Progress(Frozen):
    phase: str = ""
    """What is happening, for people: `loading weights`, `answering`."""
    done: int = 0
    total: int = 0
    """Requests answered and sealed, of requests in the sheets (those known before count as done)."""
    benchmarks_done: tuple[str, ...] = ()
    """Benchmarks whose every response is sealed in the artifact store."""
    restarts: tuple[str, ...] = ()
    """Why the engine was started again within the attempt, a sentence each."""
    spent: Spent = Spent()


class PrepareDone(Frozen):
    stage: Literal[Stage.PREPARE] = Stage.PREPARE
    sheet: str
    """Artifact key of the sheet folder."""
    digest: str
    requests: int
    documents: int
    truncated: int
    longest: int = 0
    """Tokens of the longest request, what it may generate included; 0 where the worker did not say."""
    identity: dict[str, Any]
    """The model's part of the identity; the hub adds engine family and device type."""
    provenance: dict[str, Any]
    sheet_class: str = ""
    """Digest of all that a sheet depends on besides benchmark and harness: models of one class have equal requests.
    Empty where the worker did not say."""


class Unanswered(Frozen):
    """Requests that were set aside, and what follows: their benchmarks have no score, and this sentence says why."""

    requests: tuple[str, ...]
    benchmarks: tuple[str, ...]
    sentence: str


class InferDone(Frozen):
    stage: Literal[Stage.INFER] = Stage.INFER
    computed: int
    """Requests that this attempt answered, engines that died on the way included."""
    reused: int
    """Requests that were answered before this attempt."""
    seconds: float
    """Engine time: from the first request fed to the last answered. This and the tokens count the attempt's engines
    that died as well, up to their last seal."""
    total_seconds: float
    """From the start of each stage program to its end, loading included."""
    tokens_computed: int
    tokens_reused: int
    engine: EngineInfo
    settings: dict[str, Any] = {}
    unanswered: tuple[Unanswered, ...] = ()
    restarts: tuple[str, ...] = ()
    """Why the engine was started again within the attempt, a sentence each."""


class ScoreValue(Frozen):
    """One number of lm-eval's results."""

    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    samples: int
    higher_is_better: bool | None = None


class Outcomes(Frozen):
    """What each document of a task came to, in a metric whose score is the mean of these numbers.

    Two models that answered the same documents are compared document by document with them.
    """

    task: str
    """A task, never a group."""
    metric: str
    filter: str
    documents: str
    """Digest of the task's name and its documents' hashes, sorted: equal where the same documents were answered."""
    count: int = Field(ge=1, le=10_000_000)
    is_right_or_wrong: bool
    """Whether each is 0 or 1."""
    values: str
    """In the order of the documents' hashes, as base64: a bit each, the lowest first, or a little-endian float32."""


class Weighting(Frozen):
    """A group's score as the weighted mean of its tasks'."""

    group: str
    metric: str
    filter: str
    weights: dict[str, float]
    """By task; they add up to 1."""


class ScoreDone(Frozen):
    stage: Literal[Stage.SCORE] = Stage.SCORE
    results: str
    """Artifact key of the results folder: results.json, samples_*.jsonl.zst, segments.json."""
    scores: tuple[ScoreValue, ...]
    provenance: dict[str, Any]
    outcomes: tuple[Outcomes, ...] = ()
    weightings: tuple[Weighting, ...] = ()


Done = Annotated[PrepareDone | InferDone | ScoreDone, Field(discriminator="stage")]


class Update(Frozen):
    """What became of an attempt; accepted only while `attempt` is the job's current one."""

    version: int = VERSION
    attempt: str
    worker: str
    at: datetime
    event: Literal["started", "completed", "failed", "released"]
    """`released`: the worker gave the attempt back unfinished (stopping, preempted); costs no retry."""
    done: Done | None = None
    failure: FailureKind | None = None
    """Of a released attempt: why the worker cannot take it now; it is tried again after a pause."""
    sentence: str = ""
    """For people: what failed and what to do next."""
    log_tail: str = ""
    preempted: bool = False
    """Of a released attempt: it was ended because others want its devices."""
    progress: Progress | None = None
    """How far the attempt had come: the heartbeats say it too, but not to the last second."""


class GpuState(StrEnum):
    """What a worker's policy says of one GPU now. Only of `idle` and `ours` may Evalyard use it."""

    IDLE = "idle"
    OURS = "ours"  # Evalyard computes on it, or keeps an engine warm there
    WAITING = "waiting"  # not idle for long enough
    BUSY = "busy"  # others compute on it
    HELD = "held"  # others hold memory on it and compute nothing
    LEFT_FREE = "left_free"  # idle, and kept free for others
    CLOSED = "closed"  # outside the windows, or an operator drained or paused the worker
    LEAVING = "leaving"  # given back, and its memory is not seen free yet
    UNKNOWN = "unknown"  # cannot be judged, which counts as not idle


class Gpu(Frozen):
    """One GPU of a worker, as the policy judges it now."""

    index: int
    """Among the GPUs that the worker may use; the scheduler knows them as slots."""
    name: str = ""
    uuid: str = ""
    state: GpuState
    sentence: str
    """Why, for operators: `busy: another user's process 4211 holds 31 GB`."""
    memory_bytes: int | None = None
    memory_used: int | None = None


class Mode(StrEnum):
    """What an operator lets a worker do."""

    OPEN = "open"
    DRAINED = "drained"  # ends what it runs, takes nothing new
    PAUSED = "paused"  # gives back what it runs, takes nothing new


class EngineKnowledge(Frozen):
    """What an engine's own registry says, so that nobody waits for an engine that does not know their model."""

    architectures: tuple[str, ...] = ()
    """Generating models that it loads."""
    dropped: dict[str, str] = {}
    """Those that it knew once, with the last version that did."""
    quantisations: tuple[str, ...] = ()


class Heartbeat(Frozen):
    """A worker lives, and how far its attempts are. Extends their leases."""

    version: int = VERSION
    worker: str
    """Unique name; also the name of the queue its orders come by."""
    boot: str
    """New at each start of the worker process: attempts of an earlier boot are lost."""
    kind: Literal["harness", "engine"]
    at: datetime
    slots: int
    """Of an engine worker: GPUs that it may use now, on a CPU 1; of a harness worker: stages at a time."""
    until: datetime | None = None
    """When it must have given back what it uses, by its own clock; None while no end is known."""
    engine: EngineInfo | None = None
    running: dict[str, Progress] = {}
    stopping: bool = False
    weights: tuple[str, ...] = ()
    """Commits whose downloaded weights lie on its host, those used last first; no more than the first few."""
    warm: tuple[str, ...] = ()
    """Commits of models whose engines are up, idle ones first: the next work of such a model need not load it."""
    mode: Mode = Mode.OPEN
    """What it obeys; the hub repeats an operator's word until the worker says the same."""
    sentence: str = ""
    """Why it takes no work now, for people; empty when it does."""
    gpus: tuple[Gpu, ...] = ()
    host: str = ""
    """Name of its host, as a cluster knows it; empty where the worker did not say."""
    is_host_named: bool = False
    """Whether its operator named the host: then all that run there are judged as one, whatever they are called."""
    harnesses: tuple[str, ...] = ()
    """Harness environments on its host, e.g. `lm_eval 0.4.13`; empty where the worker did not say."""
    engine_settings: str = ""
    """Digest of the engine settings that its operator gave it; empty for none, and where it did not say."""
    address: str = ""
    """What envelopes for this process are sealed with; empty of a release that opens none."""
    knowledge: EngineKnowledge | None = None
    """What its engine knows: said in the first heartbeats of a boot and now and then, as it is long."""


class Forecast(Frozen):
    """What a worker is likely to be ordered next. A note that may be lost, and no promise."""

    version: int = VERSION
    models: tuple[Model, ...] = ()
    """Models of the Hub, the next one first."""


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no white space: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def identity_digest(identity: dict[str, Any]) -> str:
    """The address of everything this model identity has answered: 32 hexadecimal digits of a SHA-256."""
    return hashlib.sha256(canonical_json(identity)).hexdigest()[:32]
