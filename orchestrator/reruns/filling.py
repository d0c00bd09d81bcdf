"""Makes one finished evaluation again under a plan's suite version: with the jobs it needs, and no others.

What is unchanged is carried over, what is only scored otherwise gets its sheet and goes to score, and only an
evaluation with new requests gets inference. Done again it adds what is missing, so that a killed hub begins anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session

from orchestrator import arrows, evaluations, results
from orchestrator.dossiers import Dossier, open_dossier
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.reruns.carrying import CannotCarry, carry_scores, is_judged_alike, judged_by, scores_of
from orchestrator.reruns.choosing import may_be_prepared
from orchestrator.reruns.compare import VerdictKind
from orchestrator.reruns.counterparts import find_again, job_of, make_again
from orchestrator.reruns.findings import Finding
from orchestrator.scheduling import turns
from orchestrator.suites import Suite, SuiteBenchmark
from orchestrator.tables import Evaluation, Job, Rerun
from orchestrator.wire import FailureKind, Stage

ORDER_STEP = timedelta(milliseconds=1)
"""Between the turns of evaluations that are made one after the other."""


@dataclass(frozen=True)
class Versions:
    """The suite as it was and as it is to be."""

    before: Suite
    after: Suite


def fill(
    session: Session,
    rerun: Rerun,
    old: Evaluation,
    *,
    versions: Versions,
    findings: Mapping[str, Finding],
    position: int,
    now: datetime,
) -> bool:
    """Give an evaluation's counterpart everything that it lacks; False when there was nothing to add.

    `findings` are those on this evaluation's benchmarks; what has none is prepared for itself. `position` is its place
    among the evaluations of the plan.
    """
    again = find_again(session, rerun, old) or make_again(session, rerun, old, now=now)
    if again is None or again.rerun_id is None:
        return False
    assert old.id is not None
    assert again.id is not None
    was = open_dossier(session, old.id)
    assert was is not None
    dossier = open_dossier(session, again.id)
    assert dossier is not None
    state = dossier.evaluation.state
    if not (state.is_final or state is EvaluationState.PLANNED) or state is EvaluationState.CANCELLED:
        return False
    if dossier.evaluation.rerun_id != rerun.id:
        dossier.evaluation.rerun_id = rerun.id  # of an earlier plan that was abandoned, or is done
        session.add(dossier.evaluation)
        session.flush()
    filling = _Filling(session, rerun, was, dossier, versions, position=position, now=now)
    wanted = [one for one in versions.after.benchmarks if _is_wanted(rerun, one, findings.get(one.name))]
    added = [filling.add(one, findings.get(one.name)) for one in wanted]
    filling.leave_out({one.name for one in versions.after.benchmarks} - {one.name for one in wanted})
    filling.add_inference()
    if not any(added) and state is not EvaluationState.PLANNED:
        return False
    session.flush()
    filled = open_dossier(session, again.id)
    assert filled is not None
    results.write_average(session, filled.evaluation, versions.after)
    evaluations.advance(session, filled, now=now)
    return True


def _is_wanted(rerun: Rerun, benchmark: SuiteBenchmark, finding: Finding | None) -> bool:
    """What is carried over costs nothing, so that a choice of benchmarks leaves only work out.

    What could not be compared is left for later: it is asked for again.
    """
    if finding is not None and finding.kind in (VerdictKind.SAME, VerdictKind.UNKNOWN):
        return finding.kind is VerdictKind.SAME
    return rerun.only is None or benchmark.name in rerun.only


class _Filling:
    """One evaluation while it is filled."""

    def __init__(
        self,
        session: Session,
        rerun: Rerun,
        was: Dossier,
        dossier: Dossier,
        versions: Versions,
        *,
        position: int,
        now: datetime,
    ) -> None:
        self.session, self.rerun, self.was, self.dossier, self.versions = session, rerun, was, dossier, versions
        self.now = now
        self.turn = turns.boosted(now, before=0, after=rerun.priority) + position * ORDER_STEP
        self.answered_by = _answered_by(was)
        self.needs_inference = False
        self.needs_answers = False

    def add(self, benchmark: SuiteBenchmark, finding: Finding | None) -> bool:
        """The jobs of one benchmark; False where it has them already."""
        prepare = job_of(self.dossier, Stage.PREPARE, benchmark.name)
        score = job_of(self.dossier, Stage.SCORE, benchmark.name)
        infers = [job for job in self.dossier.jobs if job.stage is Stage.INFER]
        if score is not None and (infers or score.state is not JobState.BLOCKED):
            if not self._may_be_made_now(prepare, score, finding):
                return False
            arrows.retry(self.session, score, to=JobState.BLOCKED, now=self.now)
        if prepare is None:
            prepare = self._add_prepare(benchmark.name, finding)
        elif prepare.state is JobState.FAILED and finding is not None and finding.prepared is not None:
            arrows.retry(self.session, prepare, to=JobState.BLOCKED, now=self.now)
            arrows.carry(self.session, prepare, result=self._sheet(benchmark.name, finding), now=self.now)
        elif prepare.state is JobState.FAILED and finding is None:
            arrows.retry(self.session, prepare, to=JobState.QUEUED, now=self.now)
        if score is None:
            score = self._add(Stage.SCORE, benchmark.name, JobState.BLOCKED)
        if finding is not None and finding.kind is VerdictKind.SAME and self._carry(benchmark, finding, score):
            return True
        self.needs_answers = True
        if not prepare.state.is_final or (finding is None or finding.needs_inference or self.answered_by is None):
            self.needs_inference |= prepare.state is not JobState.FAILED
        return True

    def leave_out(self, benchmarks: set[str]) -> None:
        """Take back the scoring that a planned evaluation has of benchmarks that are not wanted now."""
        if any(job.stage is Stage.INFER for job in self.dossier.jobs):
            return
        for job in [job for job in self.dossier.jobs if job.stage is Stage.SCORE and job.benchmark in benchmarks]:
            if job.state is JobState.BLOCKED:
                self.session.delete(job)
                self.dossier.jobs.remove(job)
        self.session.flush()

    def add_inference(self) -> None:
        """The infer job, ended already where every answer is there; an ended one begins again for new requests."""
        infers = [job for job in self.dossier.jobs if job.stage is Stage.INFER]
        if infers:
            has_failed = any(job.state is JobState.FAILED for job in infers)
            for job in infers if self.needs_inference or (self.needs_answers and has_failed) else ():
                if job.state is JobState.COMPLETED:
                    arrows.reopen(self.session, job, to=JobState.BLOCKED, now=self.now)
                elif job.state is JobState.FAILED:
                    arrows.retry(self.session, job, to=JobState.BLOCKED, now=self.now)
            return
        if self.needs_inference:
            # On another kind of device no response of the old evaluation would be found.
            device = {name: value for name, value in (self.answered_by or {}).items() if name == "device_type"}
            self._add(Stage.INFER, "", JobState.BLOCKED, identity=device)
        else:
            self._add(Stage.INFER, "", JobState.COMPLETED, identity=self.answered_by or {}, ended_at=self.now)

    def _add_prepare(self, benchmark: str, finding: Finding | None) -> Job:
        """With the class's sheet where there is one, and this model's own identity."""
        if finding is None:
            return self._add(Stage.PREPARE, benchmark, JobState.QUEUED)
        if finding.prepared is None:
            return self._add(
                Stage.PREPARE,
                benchmark,
                JobState.FAILED,
                failure=finding.failure or FailureKind.HARNESS,
                sentence=finding.sentence,
                ended_at=self.now,
            )
        result = self._sheet(benchmark, finding)
        return self._add(Stage.PREPARE, benchmark, JobState.COMPLETED, result=result, ended_at=self.now)

    def _sheet(self, benchmark: str, finding: Finding) -> dict[str, Any]:
        """The class's sheet, with this model's own identity."""
        own = job_of(self.was, Stage.PREPARE, benchmark)
        assert own is not None
        result = dict(finding.prepared or {})
        result["identity"] = own.result.get("identity", result.get("identity"))
        result["provenance"] = dict(result.get("provenance", {})) | {"prepared_for": finding.prepared_for}
        return result

    def _may_be_made_now(self, prepare: Job | None, score: Job, finding: Finding | None) -> bool:
        """Whether a benchmark failed for want of a sheet, before an operator let the plan go on, and may have one."""
        asked = self.rerun.asked_at
        if prepare is None or score.state is not JobState.FAILED or asked is None:
            return False
        if prepare.ended_at is None or score.ended_at is None:
            return False
        if prepare.state is JobState.COMPLETED:
            return prepare.ended_at > score.ended_at  # it stood for its class when that was compared again
        if prepare.state is not JobState.FAILED or prepare.ended_at >= asked:
            return False
        has_sheet = finding is None or finding.prepared is not None
        return has_sheet and may_be_prepared(prepare.failure, finding.kind if finding else None)

    def _carry(self, benchmark: SuiteBenchmark, finding: Finding, score: Job) -> bool:
        """Carry the score over; False where the old evaluation has none, which is then scored like any other."""
        assert self.was.evaluation.id is not None
        rows = scores_of(self.session, self.was.evaluation.id, benchmark.name)
        before = job_of(self.was, Stage.SCORE, benchmark.name)
        sheet = job_of(self.was, Stage.PREPARE, benchmark.name)
        if before is None or before.state is not JobState.COMPLETED or sheet is None:
            return False
        if not is_judged_alike(sheet.result, before.result):
            return False
        origin = {
            "evaluation": self.was.evaluation.id,
            "suite_version": self.was.evaluation.suite_version,
            "rerun": self.rerun.id,
            "because": finding.sentence,
            "judged_like": judged_by(finding.prepared or {}),
        }
        # An old score may have been carried over itself: its own origin is where it was made.
        made = before.result.get("provenance", {}).get("carried", {}).get("made_by", origin["evaluation"])
        origin["made_by"] = made
        provenance = dict(before.result.get("provenance", {})) | {"carried": origin}
        result = dict(before.result) | {"provenance": provenance}
        assert score.id is not None
        assert self.dossier.evaluation.id is not None
        try:
            carry_scores(
                self.session,
                rows,
                before=self.versions.before.benchmark(benchmark.name),
                after=benchmark,
                evaluation=self.dossier.evaluation.id,
                job=score.id,
                origin=origin,
                now=self.now,
            )
        except CannotCarry:
            return False
        return arrows.carry(self.session, score, result=result, now=self.now)

    def _add(self, stage: Stage, benchmark: str, state: JobState, **fields: Any) -> Job:
        assert self.dossier.evaluation.id is not None
        job = Job(
            evaluation_id=self.dossier.evaluation.id,
            stage=stage,
            benchmark=benchmark,
            state=state,
            priority=self.rerun.priority,
            turn_at=self.turn,
            created_at=self.now,
            **fields,
        )
        self.session.add(job)
        self.session.flush()
        self.dossier.jobs.append(job)
        return job


def _answered_by(was: Dossier) -> Mapping[str, Any] | None:
    """The full identity under which the old evaluation's responses lie; None where there are none."""
    infers = [job for job in was.jobs if job.stage is Stage.INFER]
    identity = infers[0].identity if infers else {}
    return identity if identity.get("device_type") else None
