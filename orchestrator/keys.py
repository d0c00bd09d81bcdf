"""The key of an evaluation: what makes two of them the same, so that nothing is evaluated twice. Pure."""

import hashlib

from orchestrator.people import seen_by
from orchestrator.tables import Submission
from orchestrator.wire import EngineFamily, Precision, canonical_json


def evaluation_key(
    *,
    revision: str,
    precision: Precision,
    weight_type: str,
    base_revision: str | None,
    chat_template: bool,
    suite: str,
    suite_version: str,
    limit: int | None,
    engine: EngineFamily,
    seen_by: str = "",
) -> str:
    """Digest of everything that makes two evaluations the same.

    The model's name is not part of it: a commit or a folder's digest says which weights are meant, so a renamed
    repository is the same model and a new commit is another one. `seen_by` is empty for what everybody may see: two
    who may not see each other's evaluations have one each, and learn nothing of the other. What the engine answered
    serves both.
    """
    identity = {
        "revision": revision,
        "precision": precision.value,
        "weight_type": weight_type,
        "base_revision": base_revision,
        "chat_template": chat_template,
        "suite": suite,
        "suite_version": suite_version,
        "limit": limit,
        "engine": engine.value,
    } | ({"seen_by": seen_by} if seen_by else {})
    return hashlib.sha256(canonical_json(identity)).hexdigest()[:40]


def key_of(submission: Submission, *, suite: str, suite_version: str, limit: int | None, engine: EngineFamily) -> str:
    """`evaluation_key` of a submission under a suite version."""
    return evaluation_key(
        revision=submission.revision,
        precision=submission.precision,
        weight_type=submission.weight_type,
        base_revision=submission.base_revision,
        chat_template=submission.chat_template,
        suite=suite,
        suite_version=suite_version,
        limit=limit,
        engine=engine,
        seen_by=seen_by(submission.visibility, person=submission.person_id, team=submission.team),
    )
