"""Which evaluations of a running plan take their turn next. Reads."""

from collections import defaultdict

from sqlmodel import Session, col, select

from orchestrator.lifecycle import EvaluationState
from orchestrator.reruns.findings import Findings, classes_of, of_evaluation
from orchestrator.reruns.holding import is_spent
from orchestrator.reruns.planning import suite_at
from orchestrator.reruns.plans import in_order
from orchestrator.tables import Evaluation, Job, Rerun, RerunBenchmark
from orchestrator.wire import Stage


def left(session: Session, rerun: Rerun) -> list[int]:
    """Evaluations without a counterpart, or with one that lacks benchmarks, in the plan's order."""
    states: dict[int, tuple[EvaluationState, int]] = {}
    made = session.exec(
        select(Evaluation.rerun_of, Evaluation.state, Evaluation.id)
        .join(Rerun, (col(Rerun.suite) == Evaluation.suite) & (col(Rerun.to_version) == Evaluation.suite_version))
        .where(
            Rerun.id == rerun.id,
            col(Evaluation.rerun_of).is_not(None),
            col(Evaluation.state) != EvaluationState.CANCELLED,
        )
    )
    for of, state, again in made:
        assert of is not None
        assert again is not None
        states[of] = (EvaluationState(state), again)
    listed = in_order(session, rerun)
    cancelled = _cancelled(session, rerun)
    fresh = [
        old
        for old in listed
        if (old not in states and old not in cancelled) or (old in states and states[old][0] is EvaluationState.PLANNED)
    ]
    return fresh or _lacking(session, rerun, listed, states)


def _cancelled(session: Session, rerun: Rerun) -> set[int]:
    """Evaluations whose counterpart was cancelled after this plan had begun it: whoever did that is not overruled."""
    found = session.exec(
        select(Evaluation.rerun_of)
        .join(Job, col(Job.evaluation_id) == Evaluation.id)
        .where(
            Evaluation.rerun_id == rerun.id,
            Evaluation.suite_version == rerun.to_version,
            col(Evaluation.state) == EvaluationState.CANCELLED,
            Job.stage == Stage.INFER,
        )
    )
    return {old for old in found if old is not None}


def _lacking(
    session: Session, rerun: Rerun, listed: list[int], states: dict[int, tuple[EvaluationState, int]]
) -> list[int]:
    """Ended counterparts that an earlier choice of benchmarks left incomplete."""
    suite = suite_at(session, rerun, rerun.to_version)
    wanted = set(rerun.only or (benchmark.name for benchmark in suite.benchmarks))
    have: dict[int, set[str]] = defaultdict(set)
    for again, benchmark in session.exec(
        select(Job.evaluation_id, Job.benchmark)
        .join(Evaluation, col(Evaluation.id) == Job.evaluation_id)
        .where(
            Evaluation.suite == rerun.suite,
            Evaluation.suite_version == rerun.to_version,
            col(Evaluation.rerun_id).is_not(None),
            Job.stage == Stage.SCORE,
        )
    ):
        have[again].add(benchmark)
    ended = {old: again for old, (state, again) in states.items() if state.is_final and again in have}
    return [old for old in listed if old in ended and wanted - have[ended[old]]]


def choose(
    session: Session, rerun: Rerun, waiting: list[int], *, findings: Findings, most: int
) -> list[tuple[int, int]]:
    """The next evaluations with their places; past its budget only those without new requests."""
    spent = is_spent(rerun)
    due = {
        (row.sheet_class, row.benchmark)
        for row in session.exec(
            select(RerunBenchmark).where(RerunBenchmark.rerun_id == rerun.id, RerunBenchmark.verdict == "")
        )
        if not row.facts.get("alone")
    }
    chosen: list[tuple[int, int]] = []
    for start in range(0, len(waiting), 500):
        part = waiting[start : start + 500]
        classes = classes_of(session, part)
        for offset, old in enumerate(part):
            named = classes[old]
            if any((of, benchmark) in due for benchmark, of in named.items()):
                continue  # a class that came meanwhile and is not compared yet
            if spent and any(one.needs_inference for one in of_evaluation(findings, named).values()):
                continue
            chosen.append((old, start + offset))
            if len(chosen) >= most:
                return chosen
    return chosen
