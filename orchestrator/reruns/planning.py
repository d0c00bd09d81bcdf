"""Finds out what a new harness or suite version changes: one prepare for each class of equal sheets, then comparing.

`advance` is one step of it, made again and again until nothing is left; a hub that is killed goes on where it was. What
it reads of a sheet is the small file of facts beside it.
"""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from orchestrator import db
from orchestrator.artifacts import ArtifactStore
from orchestrator.lifecycle import RerunState
from orchestrator.reruns.classes import SheetClass, count_classes, next_of_class
from orchestrator.reruns.comparing import due, unknown, verdict_on, write_verdict
from orchestrator.reruns.costs import estimate
from orchestrator.reruns.counterparts import add_prepare, lock
from orchestrator.suites import Suite
from orchestrator.tables import Evaluation, Rerun, RerunBenchmark, SuiteVersion

ASKED_AT_ONCE = 500
"""Sheets that one transaction asks for: where nothing says which sheets are equal there is one for each evaluation."""


def advance(engine: Engine, store: ArtifactStore, rerun: int, *, now: datetime, look_for_classes: bool = True) -> bool:
    """One step of a plan; True when something was written, so that another step may be due.

    Looking for classes reads every sheet's row of the suite: while a plan runs it need not be done at each step.
    """
    classes: list[SheetClass] = []
    with db.session(engine, read_only=True) as session:
        pairs = due(session, rerun)
        if not pairs and look_for_classes:
            classes = count_classes(session, rerun)
    if pairs:
        verdicts = [verdict_on(store, pair) for pair in pairs]  # outside any transaction: it takes long
        with db.session(engine) as session:
            for pair, found in zip(pairs, verdicts, strict=True):
                write_verdict(session, pair, found)
        return True
    with db.session(engine) as session:
        plan = _open(session, rerun)
        if plan is None:
            return False
        if _note_classes(session, plan, classes) | _ask_for_sheets(session, plan, now=now):
            return True
    return _close(engine, rerun, now=now)


def _note_classes(session: Session, rerun: Rerun, classes: Iterable[SheetClass]) -> bool:
    """Write down which classes of sheets the evaluations are of; True when there are new ones."""
    known = {
        (row.sheet_class, row.benchmark): row
        for row in session.exec(select(RerunBenchmark).where(RerunBenchmark.rerun_id == rerun.id))
    }
    found = False
    for benchmark, named, count, first in classes:
        row = known.get((named, benchmark))
        if row is None:
            assert rerun.id is not None
            session.add(
                RerunBenchmark(
                    rerun_id=rerun.id, sheet_class=named, benchmark=benchmark, evaluation_id=first, evaluations=count
                )
            )
            found = True
        elif row.evaluations != count:
            row.evaluations = count
            session.add(row)
    session.flush()
    return found


def undecided(session: Session, rerun: int) -> int:
    """Comparisons that are still to be made."""
    rows = session.exec(
        select(RerunBenchmark.facts).where(RerunBenchmark.rerun_id == rerun, RerunBenchmark.verdict == "")
    ).all()
    return sum(1 for facts in rows if not facts.get("alone"))


def _open(session: Session, rerun: int) -> Rerun | None:
    """The plan, locked; None when it takes no step now."""
    row = session.exec(select(Rerun).where(Rerun.id == rerun).with_for_update()).first()
    return row if row is not None and row.state in (RerunState.PLANNING, RerunState.RUNNING) else None


def _ask_for_sheets(session: Session, rerun: Rerun, *, now: datetime) -> bool:
    """Have one model of each class prepared by the new harness."""
    rows = session.exec(
        select(RerunBenchmark)
        .where(RerunBenchmark.rerun_id == rerun.id, RerunBenchmark.verdict == "")
        .order_by(col(RerunBenchmark.evaluation_id), col(RerunBenchmark.benchmark))
    ).all()
    unasked = [row for row in rows if not row.facts.get("job") and not row.facts.get("alone")][:ASKED_AT_ONCE]
    if unasked:
        lock(session, rerun, [row.evaluation_id for row in unasked])
    for row in unasked:
        old = session.exec(select(Evaluation).where(Evaluation.id == row.evaluation_id)).one()
        job = add_prepare(session, rerun, old, row.benchmark, now=now)
        following = None if job else next_of_class(session, rerun, row)
        if job is not None:
            row.facts = row.facts | {"job": job.id}
        elif following is not None:
            row.evaluation_id = following
        else:
            # Each of its models has a counterpart already, which was prepared for itself.
            row.facts = row.facts | {"alone": True}
        session.add(row)
    session.flush()
    return bool(unasked)


def _close(engine: Engine, rerun: int, *, now: datetime) -> bool:
    """Make the plan ready once everything is compared."""
    with db.session(engine, read_only=True) as session:
        plan = session.exec(select(Rerun).where(Rerun.id == rerun)).one()
        if plan.state is not RerunState.PLANNING or undecided(session, rerun):
            return False
        found = estimate(session, plan)
    with db.session(engine) as session:
        row = session.exec(select(Rerun).where(Rerun.id == rerun).with_for_update()).one()
        if row.state is not RerunState.PLANNING:
            return False
        row.state = RerunState.READY
        row.ready_at = now
        row.estimate = found.as_record()
        row.sentence = unknown(session, row)
        session.add(row)
    return True


def suite_at(session: Session, rerun: Rerun, version: str) -> Suite:
    """The plan's suite as one version has it: both are recorded when the plan is made."""
    row = session.get(SuiteVersion, (rerun.suite, version))
    assert row is not None
    return Suite.model_validate(row.record)
