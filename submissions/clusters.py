"""The API's view of clusters that workers are launched on: why each launches or not; and pausing one."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict

from orchestrator.clusters import launches
from orchestrator.clusters.verdicts import ClusterVerdict, cluster_verdicts
from submissions.api import FOUND, VERSION
from submissions.context import AHub

router = APIRouter(prefix=f"/api/{VERSION}")


class Action(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"


SAID = {
    Action.PAUSE: "is paused: nothing is launched there, and workers that are up end when they have nothing to do.",
    Action.RESUME: "launches again; what failed before is forgiven.",
}


class ClusterRecord(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    name: str
    kind: str
    paused: bool
    paused_by: str = ""
    """Name of the operator who paused it; empty where the site has no accounts."""
    paused_since: datetime | None = None
    verdict: str
    """Why it launches or not."""
    looked_at: datetime | None
    gpus: str
    """What the cluster calls them."""
    total: int
    idle: int
    others_waiting: int
    """Jobs of others that wait for them."""
    up: int
    """Launched workers that were heard of."""
    starting: int
    notes: list[str]
    """What an operator should mend."""
    failures: list[str]
    """Why the last launches came to nothing, the latest first."""


class ClusterAnswer(BaseModel):
    message: str
    cluster: ClusterRecord


@router.get("/clusters", summary="Clusters that workers are launched on, and why or why not")
def list_clusters(hub: AHub) -> list[ClusterRecord]:
    with hub.reading() as session:
        return [_record(one) for one in cluster_verdicts(session, datetime.now(UTC))]


@router.post("/clusters/{name}/{action}", responses=FOUND, summary="Pause a cluster, or let it launch again")
def operate(name: Annotated[str, Path(max_length=100)], action: Action, hub: AHub) -> ClusterAnswer:
    """It holds from now on, until it is resumed; a worker there is drained or paused by its own name."""
    with hub.writing() as session:
        launches.pause(session, name, paused=action is Action.PAUSE, by=hub.viewer.account)
        (found,) = (one for one in cluster_verdicts(session, datetime.now(UTC)) if one.name == name)
    return ClusterAnswer(message=f"Cluster {name} {SAID[action]}", cluster=_record(found))


def _record(verdict: ClusterVerdict) -> ClusterRecord:
    return ClusterRecord.model_validate(verdict)
