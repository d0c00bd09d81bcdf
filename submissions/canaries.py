"""The API's operations on canaries: set one, look at what it found, run it again, let a build in, end it."""

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.canaries import canary as canaries
from orchestrator.canaries.builds import in_words
from orchestrator.program import program
from submissions.api import FOUND, VERSION
from submissions.context import AHub
from submissions.reading.canaries import CanariesRecord, read_canaries

router = APIRouter(prefix=f"/api/{VERSION}")


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, use_attribute_docstrings=True)


class CanaryRequest(_Request):
    evaluation: int = Field(ge=1, le=2**62)
    """A finished one that this site's workers have answered."""
    requests: int = Field(default=300, ge=canaries.FEWEST, le=canaries.MOST)
    """How many of its requests to ask, about: whole documents are taken."""


class RunRequest(_Request):
    worker: str = Field(min_length=1, max_length=100)
    """On whose build to run it again."""


class AcceptRequest(_Request):
    build: str = Field(min_length=1, max_length=64)
    """As the status lists it."""


class OffRequest(_Request):
    canary: int | None = Field(default=None, ge=1, le=2**62)
    """All of them when left out."""


class CanaryAnswer(BaseModel):
    message: str


@router.get("/canaries", responses=FOUND, summary="The canaries, and what they found of each engine build")
def show(hub: AHub) -> CanariesRecord:
    with hub.reading() as session:
        return read_canaries(session)


@router.post("/canaries", status_code=201, responses=FOUND, summary="Make a finished evaluation the canary")
def set_canary(request: CanaryRequest, hub: AHub) -> CanaryAnswer:
    """It takes the place of the one before of the same engine family and type of device, once its sample is taken."""
    with hub.writing() as session:
        row = canaries.set_canary(
            session, request.evaluation, asked=request.requests, by=hub.viewer.name, now=datetime.now(UTC)
        )
        what = f"{row.engine.value} on {row.device_type}"
    return CanaryAnswer(
        message=f"Evaluation {request.evaluation} is the canary of {what} as soon as its sample is taken. Then each "
        "build of that engine gets nothing else until it has answered it."
    )


@router.post("/canaries/run", responses=FOUND, summary="Run the canary again on a worker's build")
def run_again(request: RunRequest, hub: AHub) -> CanaryAnswer:
    """Whether the build may work stays as it is until then."""
    with hub.writing() as session:
        run = canaries.run_again(session, request.worker, by=hub.viewer.name, now=datetime.now(UTC))
        what = f"{in_words(run.facts)} (build {run.build})"
    return CanaryAnswer(message=f"The canary is queued for {what}.")


@router.post("/canaries/accept", responses=FOUND, summary="Let a build work, whatever the canary found")
def accept(request: AcceptRequest, hub: AHub) -> CanaryAnswer:
    """Kept with the name of whoever said so; it counts until the canary is run on that build again."""
    with hub.writing() as session:
        made = canaries.accept(session, request.build, by=hub.viewer.name, now=datetime.now(UTC))
        what = in_words(made[0].facts)
    return CanaryAnswer(message=f"Workers with {what} may work.")


@router.post("/canaries/off", responses=FOUND, summary="End a canary, or all of them")
def end(request: OffRequest, hub: AHub) -> CanaryAnswer:
    """All workers of its engine may work then. What it found is kept."""
    with hub.writing() as session:
        wanted = None if request.canary is None else [request.canary]
        ended = canaries.end_canaries(session, wanted, by=hub.viewer.name, now=datetime.now(UTC))
    hub.request_stops(ended.attempts, "The canary was ended.")
    if not ended.canaries:
        return CanaryAnswer(message=f"No canary is set. Set one: {program()} canary set EVALUATION.")
    named = ", ".join(map(str, ended.canaries))
    return CanaryAnswer(message=f"Ended canary {named}: new engine versions get work at once.")
