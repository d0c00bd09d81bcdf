"""The API's operations on votes: one for each person and revision, by the formula of the queue."""

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import BaseModel

from orchestrator import votes
from submissions.api import MOVED, VERSION
from submissions.context import AHub, Hub, Id
from submissions.reading.evaluations import find

router = APIRouter(prefix=f"/api/{VERSION}")


class VoteAnswer(BaseModel):
    message: str
    votes: int
    """How many the revision has now."""


@router.put("/evaluations/{evaluation_id}/vote", responses=MOVED, summary="Vote for a revision, to have it earlier")
def vote(evaluation_id: Id, hub: AHub) -> VoteAnswer:
    """Each vote counts as an hour of waiting, up to 48; again changes nothing."""
    person = _who_may(hub, evaluation_id)
    with hub.writing() as session:
        count = votes.cast(session, evaluation_id, person, now=datetime.now(UTC))
    return VoteAnswer(message=f"Evaluation {evaluation_id} has {_counted(count)}.", votes=count)


@router.delete("/evaluations/{evaluation_id}/vote", responses=MOVED, summary="Take your vote back")
def take_back(evaluation_id: Id, hub: AHub) -> VoteAnswer:
    person = _who_may(hub, evaluation_id)
    with hub.writing() as session:
        count = votes.withdraw(session, evaluation_id, person, now=datetime.now(UTC))
    return VoteAnswer(message=f"Evaluation {evaluation_id} has {_counted(count)}.", votes=count)


def _who_may(hub: Hub, evaluation: int) -> int:
    """The person, who has an account and may see what they vote for."""
    hub.need_accounts()
    assert hub.viewer.person is not None
    with hub.reading() as session:
        find(session, evaluation)
    return hub.viewer.person


def _counted(count: int) -> str:
    return f"{count} vote{'' if count == 1 else 's'}"
