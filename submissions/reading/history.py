"""What became of one submission under every version of its suite: each cell of the board with what it was before."""

from collections import defaultdict

import sqlalchemy
from sqlmodel import Session, col, or_, select

from orchestrator.results.scores import VALUE
from orchestrator.tables import Evaluation, Score
from submissions.records import PastCell, PastScores


def read_history(session: Session, evaluation: Evaluation) -> list[PastScores]:
    """The submission under every version of the suite, the latest first; empty where there is but one."""
    linked = [
        col(Evaluation.submission_id) == evaluation.submission_id,
        col(Evaluation.rerun_of) == evaluation.id,
    ]
    if evaluation.rerun_of is not None:
        linked.append(col(Evaluation.id) == evaluation.rerun_of)
    rows = session.exec(
        select(Evaluation)
        .where(
            or_(*linked),
            Evaluation.suite == evaluation.suite,
            Evaluation.document_limit == evaluation.document_limit
            if evaluation.document_limit is not None
            else col(Evaluation.document_limit).is_(None),
        )
        .order_by(col(Evaluation.id).desc())
    ).all()
    cells: dict[int, dict[str, PastCell]] = defaultdict(dict)
    columns = (Score.evaluation_id, Score.benchmark, Score.value, Score.stderr, Score.provenance)
    own = sqlalchemy.select(*(col(column) for column in columns)).where(
        col(Score.evaluation_id).in_([row.id for row in rows]), col(Score.task) == "", col(Score.metric) == VALUE
    )
    for number, benchmark, value, stderr, provenance in session.execute(own):
        carried = provenance.get("carried", {}).get("made_by")
        cells[number][benchmark] = PastCell(value=value, stderr=stderr, carried_from=carried)
    found = [
        PastScores(
            evaluation=row.id,
            suite_version=row.suite_version,
            average=row.average,
            ended_at=row.ended_at,
            benchmarks=cells[row.id],
        )
        for row in rows
        if row.id is not None and cells.get(row.id)
    ]
    return found if len(found) > 1 else []
