"""Everything that was evaluated of one model: all revisions, precisions, suites and their versions, with its flags."""

from collections import defaultdict
from typing import NamedTuple

from sqlmodel import Session, col, select

from orchestrator.errors import NotFound
from orchestrator.flags import list_flags
from orchestrator.tables import Evaluation, Flag, Score, Submission
from submissions.reading.evaluations import list_evaluations
from submissions.records import EvaluationRecord

MOST_EVALUATIONS = 200


class Made(NamedTuple):
    """One evaluation of the model with its values by benchmark, 0 to 100."""

    record: EvaluationRecord
    values: dict[str, tuple[float, float | None]]
    """Value and standard error."""


class ModelHistory(NamedTuple):
    model: str
    by_suite: dict[str, list[Made]]
    """The latest evaluation first."""
    benchmarks: dict[str, list[str]]
    """Of each suite, in the order in which they were first scored."""
    flags: list[Flag]
    """Lifted ones too, the latest first."""
    submission: Submission
    """The latest one."""

    def over_time(self, suite: str, benchmark: str = "") -> list[float]:
        """Values of whole evaluations, the earliest first: of a benchmark, or the averages."""
        whole = [made for made in reversed(self.by_suite[suite]) if made.record.limit is None]
        if not benchmark:
            return [made.record.average for made in whole if made.record.average is not None]
        return [made.values[benchmark][0] for made in whole if benchmark in made.values]


def read_model(session: Session, model: str) -> ModelHistory:
    """The model's history.

    Raises:
        NotFound: nobody has submitted it, or the reader may not see it.
    """
    joined = select(Submission).join(Evaluation, col(Evaluation.submission_id) == col(Submission.id))
    latest = session.exec(joined.where(Submission.model == model).order_by(col(Submission.id).desc()).limit(1)).first()
    if latest is None:
        raise NotFound(f"Nothing was evaluated of a model {model[:200]!r}. The board's search finds parts of names.")
    records = list_evaluations(session, model=model, limit=MOST_EVALUATIONS)
    values: dict[int, dict[str, tuple[float, float | None]]] = defaultdict(dict)
    benchmarks: dict[str, dict[str, None]] = defaultdict(dict)
    suites = {record.id: record.suite for record in records}
    statement = select(Score.evaluation_id, Score.benchmark, Score.value, Score.stderr).where(
        col(Score.evaluation_id).in_(suites), Score.task == "", Score.metric == "value"
    )
    for evaluation, benchmark, value, stderr in session.exec(statement.order_by(col(Score.id))).all():
        values[evaluation][benchmark] = (value, stderr)
        benchmarks[suites[evaluation]].setdefault(benchmark)
    by_suite: dict[str, list[Made]] = defaultdict(list)
    for record in records:
        by_suite[record.suite].append(Made(record, values[record.id]))
    flags = list(list_flags(session, model=model))
    return ModelHistory(model, by_suite, {name: list(found) for name, found in benchmarks.items()}, flags, latest)
