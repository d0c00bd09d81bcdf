"""What the API answers with: plain records, the same facts that the pages show."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.people import Visibility
from orchestrator.wire import EngineFamily, FailureKind, Gpu, Mode, Precision, Spent, Stage
from submissions import words


class Progress(BaseModel):
    """How far an evaluation is within its present state."""

    done: int = 0
    total: int = 0
    text: str = ""
    """For people: `120 of 300 requests answered`."""

    @property
    def share(self) -> float:
        """0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


class EvaluationRecord(BaseModel):
    """An evaluation in a list."""

    id: int
    model: str
    revision: str
    precision: Precision
    weight_type: str
    base_model: str | None
    model_type: str
    chat_template: bool
    architecture: str | None
    parameters: int | None
    licence: str | None
    submitter: str = "local"
    """Who asked for it."""
    person: int | None = None
    """Their number here; null without accounts."""
    visibility: Visibility = Visibility.PUBLIC
    """Who may see it, beside whoever asked for it and the operators."""
    team: str | None = None
    suite: str
    suite_version: str
    engine: EngineFamily
    limit: int | None
    """Documents for each task; an evaluation with a limit is never ranked."""
    state: EvaluationState
    is_waiting: bool = False
    """Whether no worker holds what it needs next, whatever its state."""
    progress: Progress
    votes: int = 0
    """For its revision; each counts as an hour of waiting, up to 48."""
    ahead: int | None = None
    """Unfinished evaluations that were submitted earlier; None once this one has ended."""
    waiting_because: str = ""
    failure: FailureKind | None
    sentence: str
    next_step: str = ""
    average: float | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def shown_state(self) -> str:
        return words.state(self.state.value, self.is_waiting)


class ScoreRecord(BaseModel):
    """One number of lm-eval's results."""

    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    samples: int


class BenchmarkRecord(BaseModel):
    """One benchmark of an evaluation: its value, the numbers it is made of and where they come from."""

    name: str
    description: str = ""
    state: JobState
    sentence: str = ""
    """Why there is no score, when it failed."""
    failure: FailureKind | None = None
    next_step: str = ""
    log_tail: str = ""
    value: float | None = None
    """0 to 100, normalised as the suite says."""
    raw: float | None = None
    stderr: float | None = None
    samples: int = 0
    scores: list[ScoreRecord] = []
    provenance: dict[str, Any] = {}
    has_samples: bool = False

    @property
    def reason(self) -> tuple[str, str]:
        """Sentence and log of why there is no score: those of one evaluation are often the same."""
        return self.sentence, self.log_tail


class AttemptRecord(BaseModel):
    """One dispatch of a job."""

    worker: str
    devices: int
    dispatched_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    outcome: str
    """Empty while it runs."""
    failure: FailureKind | None
    sentence: str
    restarts: list[str]
    """Why its engine was started again, a sentence each."""
    spent: Spent


class CostRecord(BaseModel):
    """What answering took so far: every attempt at every infer job is counted, engines that died included."""

    text: str
    """For people; empty before the first attempt."""
    seconds: float
    """Engine time: from the first request fed to the last answered."""
    total_seconds: float
    """The same with loading."""
    device_seconds: float
    """How long attempts held devices, times their number."""
    tokens_computed: int
    tokens_reused: int
    """Prompt tokens that another request's computation already held."""
    computed: int
    """Requests answered."""
    reused: int
    """Requests that others had answered before."""
    earlier_attempts: int
    """Attempts that ended without completing their job."""
    restarts: list[str]
    """Why engines were started again within their attempts, a sentence each."""


class JobRecord(BaseModel):
    id: int
    stage: Stage
    benchmark: str
    slice_index: int
    slice_count: int
    """Inference may be cut into slices, a job each."""
    state: JobState
    phase: str
    requests_done: int
    requests_total: int
    attempts: int
    history: list[AttemptRecord]
    """Every attempt, in order."""
    worker: str | None
    """Of the last attempt."""
    failure: FailureKind | None
    sentence: str
    log_tail: str
    waiting_because: str = ""
    """Why no worker has it yet, and about how long, while it is queued."""

    @property
    def name(self) -> str:
        """`prepare ARC`, `infer`, `infer, slice 2 of 4`."""
        part = f", slice {self.slice_index + 1} of {self.slice_count}" if self.slice_count > 1 else ""
        return f"{self.stage.value} {self.benchmark}".strip() + part

    @property
    def was_disturbed(self) -> bool:
        """Whether it took more than one attempt, or one that failed or whose engine was started again."""
        return len(self.history) > 1 or any(attempt.restarts or attempt.failure for attempt in self.history)


class EventRecord(BaseModel):
    at: datetime
    name: str
    job: int | None
    details: dict[str, Any]


class PastCell(BaseModel):
    value: float
    stderr: float | None
    carried_from: int | None
    """The evaluation whose score it is, where it was carried over unchanged."""


class PastScores(BaseModel):
    """The same submission under one suite version."""

    evaluation: int
    suite_version: str
    average: float | None
    ended_at: datetime | None
    benchmarks: dict[str, PastCell]


class SeriesPlace(BaseModel):
    """Where an evaluation stands among the checkpoints of a training run."""

    name: str
    owner: int
    """Number of the person whose series it is; 0 without accounts."""
    step: int


class EvaluationDetail(EvaluationRecord):
    """An evaluation with everything that is known of it."""

    base_revision: str | None
    base_folder: str | None
    folder: str | None
    benchmarks: list[BenchmarkRecord]
    jobs: list[JobRecord]
    cost: CostRecord
    events: list[EventRecord]
    facts: dict[str, Any]
    history: list[PastScores] = []
    """The same submission under every version of the suite, the latest first; empty where there is but one."""
    series: list[SeriesPlace] = []
    """The series of checkpoints that it belongs to."""


class SubmissionAnswer(BaseModel):
    """What became of a submission."""

    existing: bool
    """Whether an equal evaluation was there already; nothing new was queued then."""
    message: str
    evaluation: EvaluationRecord


class WorkerRecord(BaseModel):
    name: str
    kind: str
    is_up: bool
    stopping: bool
    engine: str | None
    device: str | None
    last_heartbeat: datetime
    doing: list[str] = []
    mode: Mode = Mode.OPEN
    """What operators want of it."""
    mode_by: str = ""
    """Who drained or paused it, for operators alone; empty where the site has no accounts."""
    mode_since: datetime | None = None
    """When they did, for operators alone."""
    sentence: str = ""
    """Why it takes no work now; empty when it does."""
    slots: int = 0
    """GPUs that it may use now, or stages that it runs at a time; none of a worker that is not open."""
    until: datetime | None = None
    """When its present window ends."""
    devices: int = 0
    """GPUs of its host; 0 where it computes on a CPU."""
    warm: list[str] = []
    """Models whose engines are up and wait for more work, as they were submitted."""
    gpus: list[Gpu] = []
    """What its policy says of each GPU."""

    @property
    def takes(self) -> str:
        """What it does now, in a few words."""
        if self.doing:
            return ", ".join(self.doing)
        return self.sentence or ("idle" if self.is_up else "–")

    @property
    def room(self) -> str:
        """`2 of 4 GPUs`, or how many stages it runs at a time."""
        if self.devices:
            return f"{self.slots} of {words.count(self.devices, 'GPU')}"
        return f"{words.count(self.slots, 'stage')} at a time" if self.slots else "none now"


class WorkerAnswer(BaseModel):
    message: str
    worker: WorkerRecord


class QueueRecord(BaseModel):
    running: list[EvaluationRecord]
    """Those that a worker holds a job of."""
    waiting: list[EvaluationRecord]
    failed: list[EvaluationRecord]
    """The latest ones."""
    workers: list[WorkerRecord]


class SuiteBenchmarkRecord(BaseModel):
    name: str
    description: str
    tasks: list[str]
    num_fewshot: int | None
    normalised: bool


class SuiteVersionRecord(BaseModel):
    version: str
    harness: str
    is_shown: bool
    """Whether the board shows it unless another one is named."""
    evaluations: int
    """Evaluations that have an average under it."""
    covered: int | None
    """Of the shown version's: how many have an average under this one too; None of the shown version itself."""


class SuiteRecord(BaseModel):
    name: str
    version: str
    title: str
    description: str
    harness: str
    chat_template: bool
    benchmarks: list[SuiteBenchmarkRecord]
    known_problems: list[str]
    versions: list[SuiteVersionRecord] = []
    """Where one suite is asked for: every version of it, the latest first."""


class SamplePage(BaseModel):
    """Some records of a samples file, as lm-eval wrote them."""

    evaluation: int
    benchmark: str
    task: str
    tasks: list[str]
    filters: list[str]
    """Every filter of this task: each document is kept once for each of them."""
    counted: list[tuple[str, str]]
    """Metric and filter of each number that the suite counts of this task; empty when that is not known."""
    total: int
    """Records that fit what was asked for."""
    offset: int
    records: list[dict[str, Any]]
    next_offset: int | None


class ReproductionRecord(BaseModel):
    """How to make a row's numbers again elsewhere."""

    evaluation: int
    install: str
    commands: list[str]
    versions: dict[str, str]
    notes: list[str]
    script: str
    """All of it as a shell script."""


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    faults: list[dict[str, str | None]] = []
    """Of a refused submission: each with `field`, `sentence` and `kind`."""
