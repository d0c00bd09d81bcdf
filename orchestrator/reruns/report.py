"""What a re-run changed: scores and ranks before and after, by benchmark and by model. One record for all forms.

`compose` is pure. Only whole evaluations that are there under both versions are compared; ranks are counted among
those alone, so that a re-run that is half done moves nobody's rank. Never reads a sample: `submissions.diff` does.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from orchestrator.board import Board, Standing, rank_rows, read_board
from orchestrator.errors import NotFound
from orchestrator.reruns.changes import AVERAGE, Change, ModelChange, Mover, Report, Shift, Value
from orchestrator.statistics import confidence_interval, kendall, mean, pearson, spearman
from orchestrator.suite_versions import find_version
from orchestrator.suites import Suite
from orchestrator.tables import Evaluation, Rerun, RerunBenchmark
from orchestrator.wire import EngineFamily

MOVERS = 5
"""Largest changes that are named of each benchmark, up and down together."""


@dataclass(frozen=True)
class Found:
    """What a plan found of one benchmark: verdict, evaluations of the class, what differs."""

    benchmark: str
    verdict: str
    evaluations: int
    sentence: str = ""


def read_report(session: Session, rerun_id: int, *, now: datetime) -> Report:
    """The report of a re-run as far as it is.

    Raises:
        NotFound: there is no such re-run, or a version of its suite was never recorded.
    """
    rerun = session.get(Rerun, rerun_id)
    if rerun is None:
        raise NotFound(f"There is no re-run {rerun_id}. List them: evalyard rerun list.")
    old, new = (_suite(session, rerun.suite, version) for version in (rerun.from_version, rerun.to_version))
    versions = (rerun.from_version, rerun.to_version)
    rows = session.exec(
        select(Evaluation.id, Evaluation.submission_id, Evaluation.rerun_of, Evaluation.suite_version).where(
            Evaluation.suite == rerun.suite, col(Evaluation.suite_version).in_(versions)
        )
    ).all()
    asked = {evaluation: submission for evaluation, submission, _, _ in rows}
    # What somebody submitted under the new version themselves is the old one's counterpart all the same.
    submissions = {
        evaluation: asked.get(of, submission) if version == rerun.to_version else submission
        for evaluation, submission, of, version in rows
    }
    findings = session.exec(select(RerunBenchmark).where(RerunBenchmark.rerun_id == rerun_id)).all()
    return compose(
        rerun,
        read_board(session, old),
        read_board(session, new),
        submissions={evaluation: submission for evaluation, submission in submissions.items() if evaluation},
        findings=[Found(one.benchmark, one.verdict, one.evaluations, one.sentence) for one in findings],
        now=now,
    )


def compose(
    rerun: Rerun,
    before: Board,
    after: Board,
    *,
    submissions: Mapping[int, int],
    findings: Sequence[Found] = (),
    now: datetime,
) -> Report:
    """The report from both versions' boards; `submissions` gives each evaluation's submission. Pure."""
    old, new = _by_submission(before, submissions), _by_submission(after, submissions)
    pairs = [(row, new[asked]) for asked, row in old.items() if asked in new]
    names = [benchmark.name for benchmark in before.suite.benchmarks]
    later = [benchmark.name for benchmark in after.suite.benchmarks]
    both = [name for name in names if name in later]
    counted = [pair for pair in pairs if not _left_out(*pair)]
    ranks_before, ranks_after = _ranks(before.suite, counted, side=0), _ranks(after.suite, counted, side=1)
    ranked = ranks_before.keys() & ranks_after.keys()
    if len(ranked) < max(len(ranks_before), len(ranks_after)):
        whole = [pair for pair in counted if pair[0].evaluation in ranked]
        ranks_before, ranks_after = _ranks(before.suite, whole, side=0), _ranks(after.suite, whole, side=1)
    models = [_model(*pair, names=both, ranks=(ranks_before, ranks_after)) for pair in pairs]
    shown = sorted((one for one in models if not one.left_out_because), key=_largest_first)
    assert rerun.id is not None
    return Report(
        rerun=rerun.id,
        suite=rerun.suite,
        title=after.suite.title,
        from_version=rerun.from_version,
        to_version=rerun.to_version,
        from_harness=before.suite.harness,
        to_harness=after.suite.harness,
        state=str(rerun.state),
        made_at=now,
        finished_before=sum(1 for row in old.values() if not _left_out(row, row)),
        compared=len(shown),
        average=_shift(AVERAGE, [Mover(one, one.average) for one in shown]),
        shifts=tuple(_shift(name, [Mover(one, _find(one, name)) for one in shown], findings=findings) for name in both),
        models=tuple(shown),
        left_out=tuple(one for one in models if one.left_out_because),
        only_before=tuple(name for name in names if name not in later),
        only_after=tuple(name for name in later if name not in names),
    )


def _suite(session: Session, name: str, version: str) -> Suite:
    found = find_version(session, {}, name, version)
    if found is None:
        raise NotFound(f"Version {version} of the suite '{name}' was never recorded, so nothing can be compared.")
    return found


def _by_submission(board: Board, submissions: Mapping[int, int]) -> dict[int, Standing]:
    """The latest evaluation of each submission under the board's version."""
    rows = [row for row in (*board.ranked, *board.apart) if row.suite_version == board.suite.version]
    return {
        submissions[row.evaluation]: row
        for row in sorted(rows, key=lambda row: (row.document_limit is None, row.evaluation))
        if row.evaluation in submissions
    }


def _left_out(before: Standing, after: Standing) -> str:
    """Why a pair's numbers are not counted; empty where they are."""
    if EngineFamily.SCRIPTED in (before.engine, after.engine):
        return "Its answers are made up by the scripted engine, the test double."
    if before.engine != after.engine:
        return f"It was answered by {before.engine} before and by {after.engine} after."
    if before.document_limit is not None or after.document_limit is not None:
        return "A trial, of some of the documents."
    return ""


def _ranks(suite: Suite, pairs: Iterable[tuple[Standing, Standing]], *, side: int) -> dict[int, int]:
    """Rank by the old evaluation's number, among these pairs alone."""
    old = {pair[side].evaluation: pair[0].evaluation for pair in pairs}
    board = rank_rows(suite, [pair[side] for pair in pairs])
    return {old[row.evaluation]: row.rank for row in board.ranked if row.rank is not None}


def _model(
    before: Standing, after: Standing, *, names: Sequence[str], ranks: tuple[Mapping[int, int], Mapping[int, int]]
) -> ModelChange:
    return ModelChange(
        model=before.model,
        revision=before.revision,
        precision=before.precision,
        before=before.evaluation,
        after=after.evaluation,
        average=Change(
            AVERAGE,
            None if before.average is None else Value(before.average, before.average_stderr),
            None if after.average is None else Value(after.average, after.average_stderr),
        ),
        changes=tuple(Change(name, _value(before, name), _value(after, name)) for name in names),
        rank_before=ranks[0].get(before.evaluation),
        rank_after=ranks[1].get(before.evaluation),
        left_out_because=_left_out(before, after),
    )


def _value(row: Standing, benchmark: str) -> Value | None:
    cell = row.cells.get(benchmark)
    return None if cell is None else Value(cell.value, cell.stderr)


def _find(model: ModelChange, benchmark: str) -> Change:
    return next(change for change in model.changes if change.benchmark == benchmark)


def _largest_first(model: ModelChange) -> tuple[float, str, int]:
    difference = model.average.difference
    if difference is None:
        # Without both averages: by what moved most of the benchmarks, after the whole ones.
        moved = max((abs(change.difference or 0.0) for change in model.changes), default=0.0)
        return 1.0 - moved / 1000, model.model.casefold(), model.before
    return -abs(difference), model.model.casefold(), model.before


def _shift(name: str, all_of_it: Sequence[Mover], *, findings: Sequence[Found] = ()) -> Shift:
    verdicts: dict[str, int] = {}
    own = [finding for finding in findings if finding.benchmark == name and finding.verdict]
    for finding in own:
        verdicts[finding.verdict] = verdicts.get(finding.verdict, 0) + finding.evaluations
    sentences = tuple(dict.fromkeys(finding.sentence for finding in own if finding.sentence))
    movers = [mover for mover in all_of_it if mover.change.difference is not None]
    if not movers:
        return Shift(name, 0, verdicts=verdicts, sentences=sentences)
    before = [mover.change.before.value for mover in movers if mover.change.before]
    after = [mover.change.after.value for mover in movers if mover.change.after]
    estimate = mean([mover.change.difference or 0.0 for mover in movers])
    interval = confidence_interval(estimate, len(movers))
    changed = [mover for mover in movers if mover.change.is_changed]
    changed.sort(key=lambda mover: (-abs(mover.change.difference or 0.0), mover.model.model.casefold()))
    return Shift(
        benchmark=name,
        models=len(movers),
        changed=len(changed),
        mean_before=statistics.fmean(before),
        mean_after=statistics.fmean(after),
        shift=estimate.value,
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        pearson=pearson(before, after),
        spearman=spearman(before, after),
        kendall=kendall(before, after),
        movers=tuple(changed[:MOVERS]),
        verdicts=verdicts,
        sentences=sentences,
    )
