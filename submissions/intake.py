"""Recording a submission that was examined: submission, evaluation and jobs in one transaction.

Examining (`submissions.examining`) talks to the Hub and touches no database; recording touches the database alone. A
refusal leaves no trace.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from orchestrator import footprint, jobs, results
from orchestrator.lifecycle import EvaluationState
from orchestrator.settings import HubSettings
from orchestrator.suites import Suite
from orchestrator.tables import Evaluation, Submission
from submissions.adapters import largest_rank
from submissions.examining import Accepted, examine
from submissions.facts import ModelFacts
from submissions.fleet import read_fleet
from submissions.request import SubmissionRequest


class Intake(NamedTuple):
    evaluation: Evaluation
    submission: Submission
    existing: bool
    """Whether an equal evaluation was there already; nothing new was queued then."""


def submit(
    session: Session,
    settings: HubSettings,
    *,
    suites: Mapping[str, Suite],
    request: SubmissionRequest,
    now: datetime | None = None,
) -> Intake:
    """Examine and record in one call, for callers whose session has not begun yet.

    Raises:
        SubmissionRefused: with every fault that was found.
        HubAway: the Hub does not answer; nothing is known about the model.
    """
    fleet = read_fleet(session, settings)
    return record(session, examine(settings, suites, request=request, fleet=fleet), now=now)


def record(session: Session, accepted: Accepted, *, now: datetime | None = None) -> Intake:
    """Write submission, evaluation and jobs; or find the equal evaluation that is there already.

    The unique key decides between two that come at the same moment.
    """
    now = now or datetime.now(UTC)
    equal = _find(session, accepted)
    if equal is not None and equal.evaluation.state is EvaluationState.CANCELLED:
        # It keeps its page but no longer stands for the model.
        session.exec(
            update(Evaluation)
            .where(col(Evaluation.key) == accepted.key, col(Evaluation.state) == EvaluationState.CANCELLED)
            .values(key=Evaluation.key + "-cancelled-" + str(int(now.timestamp() * 1e6)))
        )
    elif equal is not None:
        _note_token(session, equal.submission, accepted)
        return equal
    try:
        with session.begin_nested():
            submission = _as_submission(accepted, now=now)
            session.add(submission)
            session.flush()
            assert submission.id is not None
            evaluation = Evaluation(
                submission_id=submission.id,
                suite=accepted.suite.name,
                suite_version=accepted.suite.version,
                engine=accepted.engine,
                document_limit=accepted.limit,
                key=accepted.key,
                created_at=now,
            )
            session.add(evaluation)
            session.flush()
    except IntegrityError:
        equal = _find(session, accepted)
        assert equal is not None, "whoever was faster has committed"
        _note_token(session, equal.submission, accepted)
        return equal
    jobs.create_jobs(session, evaluation, [benchmark.name for benchmark in accepted.suite.benchmarks])
    return Intake(evaluation, submission, existing=False)


def _find(session: Session, accepted: Accepted) -> Intake | None:
    """The evaluation that has the submission's key, if there is one."""
    found = session.exec(
        select(Evaluation, Submission)
        .join(Submission, col(Submission.id) == col(Evaluation.submission_id))
        .where(Evaluation.key == accepted.key)
    ).first()
    return Intake(*found, existing=True) if found is not None else None


def _note_token(session: Session, submission: Submission, accepted: Accepted) -> None:
    """Whose it is and who submits it again, now with or without need of their own token, has the next retry know."""
    mine = submission.person_id is not None and submission.person_id == accepted.owner.person
    if mine and submission.own_token != accepted.own_token:
        submission.own_token = accepted.own_token
        session.add(submission)
        session.flush()


def _as_submission(accepted: Accepted, *, now: datetime) -> Submission:
    model, base = accepted.model, accepted.base
    whole = base or model
    counts = [facts.parameters for facts in (model, base) if facts is not None]
    known = [count for count in counts if count is not None]
    facts: dict[str, Any] = {
        "architectures": list(whole.architectures),
        "weight_bytes": sum(part.weight_bytes for part in (model, base) if part is not None),
        "stored_as": dict(model.weights.elements),
        "quantization": whole.quantization_method or None,
        "has_chat_template": (model if base is None or model.has_tokenizer else base).has_chat_template,
        "context_limit": _context_limit(whole),
        # From these the scheduler reckons what it takes to hold the model.
        "config": footprint.kept_facts(whole.config or {}),
    }
    if whole.config and whole.parameters:
        facts["active_parameters"] = footprint.active_parameters(whole.config, whole.parameters)
    if base is not None:
        facts["adapter"] = {
            "rank": largest_rank(model.adapter_config or {}),
            "has_tokenizer": model.has_tokenizer,
        }
    if model.folder is None and model.name != accepted.asked_name:
        facts["asked_name"] = accepted.asked_name
    return Submission(
        model=model.name,
        revision=model.revision,
        folder=model.folder,
        precision=accepted.precision,
        weight_type=accepted.weight_type,
        base_model=base.name if base else None,
        base_revision=base.revision if base else None,
        base_folder=base.folder if base else None,
        model_type=accepted.model_type.value,
        chat_template=accepted.chat_template,
        architecture=";".join(whole.architectures) or None,
        parameters=sum(known) if len(known) == len(counts) else None,
        licence=model.licence,
        organisation=model.organisation,
        submitter=accepted.owner.name,
        person_id=accepted.owner.person,
        visibility=accepted.owner.visibility,
        team=accepted.owner.team,
        own_token=accepted.own_token,
        submitted_at=now,
        facts=results.finite(facts),  # a stranger's config may say anything
    )


def _context_limit(facts: ModelFacts) -> int | None:
    found = (facts.config or {}).get("max_position_embeddings")
    return found if isinstance(found, int) and 0 < found < 1 << 31 else None
