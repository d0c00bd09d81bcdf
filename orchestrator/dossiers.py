"""An evaluation with its submission and all its jobs, locked and read once for the length of a transaction.

Whoever moves jobs does it here first: two changes of one evaluation follow each other, and what was read stays true,
because the moves of `orchestrator.arrows` keep the rows in memory as they leave those of the database.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlmodel import Session, col, select

from orchestrator.tables import Evaluation, Job, Submission
from orchestrator.wire import Stage


@dataclass(frozen=True)
class Dossier:
    evaluation: Evaluation
    submission: Submission
    jobs: list[Job]
    """In the order in which they were made. What a canary asks of its model is none of the evaluation's."""
    canaries: list[Job] = field(default_factory=list)

    def job(self, job: int) -> Job | None:
        return next((one for one in (*self.jobs, *self.canaries) if one.id == job), None)


def open_dossiers(session: Session, evaluations: Iterable[int]) -> dict[int, Dossier]:
    """These evaluations, their rows held until the transaction ends; what there is none of is left out.

    Locked in the order of their numbers, as by every transaction that locks several. (SQLite: writers follow each other
    anyway.)
    """
    wanted = sorted(set(evaluations))
    locked = (
        select(Evaluation)
        .where(col(Evaluation.id).in_(wanted))
        .order_by(col(Evaluation.id))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    found = {row.id: row for row in session.exec(locked) if row.id is not None}
    about = select(Submission).where(col(Submission.id).in_({row.submission_id for row in found.values()}))
    submissions = {row.id: row for row in session.exec(about)}
    jobs: dict[int, list[Job]] = {evaluation: [] for evaluation in found}
    # After the lock, in a statement of its own: PostgreSQL shows each statement what was committed before it.
    theirs = select(Job).where(col(Job.evaluation_id).in_(found)).order_by(col(Job.id))
    canaries: dict[int, list[Job]] = {evaluation: [] for evaluation in found}
    for job in session.exec(theirs.execution_options(populate_existing=True)):
        (canaries if job.stage is Stage.CANARY else jobs)[job.evaluation_id].append(job)
    return {
        number: Dossier(evaluation, submissions[evaluation.submission_id], jobs[number], canaries[number])
        for number, evaluation in found.items()
    }


def open_dossier(session: Session, evaluation: int) -> Dossier | None:
    """One evaluation's; None where there is none of that number."""
    return open_dossiers(session, [evaluation]).get(evaluation)
