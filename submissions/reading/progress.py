"""How far an evaluation is, from its jobs. Pure."""

from collections.abc import Iterable, Sequence

from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.tables import Job
from orchestrator.wire import Stage
from submissions.records import Progress


def next_jobs(jobs: Iterable[Job]) -> list[Job]:
    """The open jobs of the earliest stage that has any: scores may be made while inference waits. Pure."""
    open_jobs = [job for job in jobs if not job.state.is_final and job.state is not JobState.BLOCKED]
    return next((found for stage in Stage if (found := [job for job in open_jobs if job.stage is stage])), [])


def progress_of(state: EvaluationState, jobs: Iterable[Job]) -> Progress:
    """How far an evaluation is within its present state. Pure."""
    facts = list(jobs)
    by_stage = {stage: [job for job in facts if job.stage is stage] for stage in Stage}
    if state is EvaluationState.PREPARING:
        return _counted(by_stage[Stage.PREPARE], "benchmark", "prepared")
    if state is EvaluationState.RUNNING:
        infer = by_stage[Stage.INFER]
        done, total = sum(job.requests_done for job in infer), sum(job.requests_total for job in infer)
        phase = next((job.phase for job in infer if job.phase), "")
        if not total or not (done or phase):
            return Progress(text=phase or ("starting" if any(job.state.is_held for job in infer) else ""))
        text = f"{done} of {total} requests answered"
        return Progress(done=done, total=total, text=f"{text}, {phase}" if phase and phase != "answering" else text)
    if state is EvaluationState.SCORING:
        return _counted(by_stage[Stage.SCORE], "benchmark", "scored")
    if state is EvaluationState.FINISHED:
        return Progress(done=1, total=1, text="")
    return Progress()


def _counted(jobs: Sequence[Job], noun: str, verb: str) -> Progress:
    """Those that failed are no progress: they are told apart."""
    done = sum(1 for job in jobs if job.state is JobState.COMPLETED)
    failed = sum(1 for job in jobs if job.state is JobState.FAILED)
    text = f"{done} of {len(jobs)} {noun}{'' if len(jobs) == 1 else 's'} {verb}"
    return Progress(done=done, total=len(jobs), text=f"{text}, {failed} failed" if failed else text)
