"""A plan's work grows with classes of sheets, not with evaluations; `benchmarks/reruns.py` measures a large one."""

from pathlib import Path

from sqlalchemy import Engine, event
from sqlmodel import func, select

from benchmarks.reruns import NOW, REQUESTS, fill, make_suite
from orchestrator import db
from orchestrator.artifacts import ArtifactStore
from orchestrator.lifecycle import RerunState
from orchestrator.reruns.runner import Runner
from orchestrator.tables import Job, Rerun, RerunBenchmark

CLASSES = 2


def planned(folder: Path, *, evaluations: int) -> tuple[Engine, int]:
    """The database of a plan that is ready, and how many statements it took to get there."""
    engine = db.make_engine(f"sqlite:///{folder / 'evalyard.db'}")
    db.migrate(engine)
    fill(engine, folder / "artifacts", evaluations=evaluations, classes=CLASSES, scale=0.001)
    suite = make_suite()
    runner = Runner(engine, {suite.name: suite}, ArtifactStore((folder / "artifacts").as_uri(), read_only=True))
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    while runner.look(NOW):
        pass
    return engine, len(statements)


def test_a_plan_compares_classes_and_asks_no_more_for_more_evaluations(tmp_path: Path) -> None:
    for name in ("few", "many"):
        (tmp_path / name).mkdir()
    _, few = planned(tmp_path / "few", evaluations=10)
    engine, many = planned(tmp_path / "many", evaluations=200)
    assert many == few
    with db.session(engine, read_only=True) as session:
        (plan,) = session.exec(select(Rerun)).all()
        compared = session.exec(select(func.count()).select_from(RerunBenchmark)).one()
        prepared = session.exec(
            select(func.count()).select_from(Job).where(Job.priority == plan.priority, Job.stage == "prepare")
        ).one()
    assert plan.state is RerunState.READY
    assert (compared, prepared) == (CLASSES * len(REQUESTS), CLASSES * len(REQUESTS))
    assert sum(plan.estimate["cells"].values()) == 200 * len(REQUESTS)
    engine.dispose()
