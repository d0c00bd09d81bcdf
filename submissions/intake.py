"""Accepting a submission: check the model, then write submission, evaluation and jobs in one transaction.

Examining talks to the Hub and touches no database; recording touches the database alone. A refusal leaves no trace.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from orchestrator import footprint, jobs
from orchestrator.keys import evaluation_key
from orchestrator.lifecycle import EvaluationState
from orchestrator.people import seen_by
from orchestrator.settings import HubSettings
from orchestrator.suites import Suite, UnknownSuite, find_suite
from orchestrator.tables import Evaluation, Submission, Worker
from orchestrator.wire import EngineFamily, Precision
from submissions.adapters import largest_rank, objection
from submissions.case import Case
from submissions.checks import find_faults
from submissions.facts import ModelFacts, read_facts
from submissions.faults import Fault, SubmissionRefused
from submissions.opening import HUB_NAME, open_model
from submissions.people.ownership import LOCAL_OWNER, Owner
from submissions.precision import resolve_precision
from submissions.request import ModelType, SubmissionRequest


@dataclass(frozen=True)
class Accepted:
    """A submission without a fault, with everything resolved: nothing of it is `auto` or a branch any more."""

    model: ModelFacts
    base: ModelFacts | None
    precision: Precision
    weight_type: str
    model_type: ModelType
    chat_template: bool
    suite: Suite
    limit: int | None
    engine: EngineFamily
    asked_name: str
    owner: Owner = LOCAL_OWNER

    @property
    def key(self) -> str:
        return evaluation_key(
            revision=self.model.revision,
            precision=self.precision,
            weight_type=self.weight_type,
            base_revision=self.base.revision if self.base else None,
            chat_template=self.chat_template,
            suite=self.suite.name,
            suite_version=self.suite.version,
            limit=self.limit,
            engine=self.engine,
            seen_by=seen_by(self.owner.visibility, person=self.owner.person, team=self.owner.team),
        )


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
    has_gpu = workers_have_gpu(session, settings.engine)
    return record(session, examine(settings, suites, request=request, has_gpu=has_gpu), now=now)


def workers_have_gpu(session: Session, engine: EngineFamily) -> bool | None:
    """Whether any worker of this engine family ever reported a GPU; None when there was no such worker at all."""
    statement = select(Worker.device_type).where(Worker.kind == "engine", Worker.engine_family == engine)
    found = session.exec(statement).all()
    return any(device != "cpu" for device in found) if found else None


def examine(
    settings: HubSettings,
    suites: Mapping[str, Suite],
    *,
    request: SubmissionRequest,
    has_gpu: bool | None = None,
) -> Accepted:
    """The submission with everything resolved, when nothing is wrong with it. Reads the Hub, writes nothing.

    `has_gpu` is what `workers_have_gpu` says, where there are workers.

    Raises:
        SubmissionRefused: with every fault that was found.
        HubAway: the Hub does not answer; nothing is known about the model.
    """
    faults: list[Fault] = []
    suite: Suite | None = None
    try:
        suite = find_suite(suites, request.suite)
    except UnknownSuite as error:
        faults.append(Fault("suite", error.sentence))
    model = _read(settings, request.model, request.revision, field="model", faults=faults)
    base = _read_base(settings, request, model=model, faults=faults)
    chat_template = request.chat_template
    if chat_template is None:
        chat_template = bool(suite and suite.chat_template)
    if model is None:
        raise SubmissionRefused(faults)
    case = Case(
        model=model,
        base=base,
        precision=None if request.precision == "auto" else request.precision,
        weight_type=request.weight_type,
        chat_template=chat_template,
        engine=settings.engine,
        has_gpu=has_gpu,
    )
    said = {fault.field for fault in faults}
    faults += [fault for fault in find_faults(case) if fault.field not in said]
    if faults or suite is None:
        raise SubmissionRefused(faults)
    return Accepted(
        model=model,
        base=base if request.weight_type == "adapter" else None,
        precision=resolve_precision(case),
        weight_type=request.weight_type,
        model_type=request.model_type,
        chat_template=chat_template,
        suite=suite,
        limit=request.limit,
        engine=settings.engine,
        asked_name=request.model,
    )


def record(session: Session, accepted: Accepted, *, now: datetime | None = None) -> Intake:
    """Write submission, evaluation and jobs; or find the equal evaluation that is there already.

    The unique key decides between two that come at the same moment.
    """
    now = now or datetime.now(UTC)
    session.exec(
        update(Evaluation)
        .where(col(Evaluation.key) == accepted.key, col(Evaluation.state) == EvaluationState.CANCELLED)
        # A cancelled evaluation keeps its page but no longer stands for the model.
        .values(key=Evaluation.key + "-cancelled-" + str(int(now.timestamp() * 1e6)))
    )
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
        found = session.exec(
            select(Evaluation, Submission)
            .join(Submission, col(Submission.id) == col(Evaluation.submission_id))
            .where(Evaluation.key == accepted.key)
        ).one()
        return Intake(found[0], found[1], existing=True)
    jobs.create_jobs(session, evaluation, [benchmark.name for benchmark in accepted.suite.benchmarks])
    return Intake(evaluation, submission, existing=False)


def _read(
    settings: HubSettings, name: str, revision: str | None, *, field: str, faults: list[Fault]
) -> ModelFacts | None:
    """The facts, or None with the reason added to `faults`."""
    token = settings.hub_token.get_secret_value() if settings.hub_token else None
    try:
        return read_facts(open_model(name, revision, mirror=settings.models, token=token, field=field))
    except SubmissionRefused as refused:
        faults += refused.faults
        return None


def _read_base(
    settings: HubSettings, request: SubmissionRequest, *, model: ModelFacts | None, faults: list[Fault]
) -> ModelFacts | None:
    """The adapter's base model: the one asked for, else the one that the adapter itself names."""
    if request.weight_type != "adapter":
        if request.base_model:
            faults.append(Fault("base_model", "A base model goes with weight type 'adapter' only. Leave it out."))
        return None
    config = (model.adapter_config if model is not None else None) or {}
    if model is not None and (not config or objection(config, settings.engine)):
        return None  # it is refused whatever the base is
    if request.base_model:
        return _read(settings, request.base_model, request.base_revision, field="base_model", faults=faults)
    named, revision = config.get("base_model_name_or_path"), request.base_revision or config.get("revision")
    if not isinstance(named, str) or not HUB_NAME.fullmatch(named):
        return None
    revision = revision if isinstance(revision, str) else None
    return _read(settings, named, revision, field="base_model", faults=faults)


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
        submitter=accepted.owner.name,
        person_id=accepted.owner.person,
        visibility=accepted.owner.visibility,
        team=accepted.owner.team,
        submitted_at=now,
        facts=facts,
    )


def _context_limit(facts: ModelFacts) -> int | None:
    found = (facts.config or {}).get("max_position_embeddings")
    return found if isinstance(found, int) and 0 < found < 1 << 31 else None
