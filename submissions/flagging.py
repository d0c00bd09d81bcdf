"""The API's operations on flags: warn of a model with reason and link, take a warning back, list them."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.flags import flag, lift, list_flags
from orchestrator.tables import Flag
from orchestrator.tables.flags import FlagKind
from submissions.api import FOUND, VERSION
from submissions.context import AHub

router = APIRouter(prefix=f"/api/{VERSION}")


class FlagRequest(BaseModel):
    """What an operator warns of."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, use_attribute_docstrings=True)

    model: str = Field(min_length=1, max_length=1000, examples=["org/name"])
    kind: FlagKind
    reason: str = Field(min_length=1, max_length=2000)
    """A sentence that readers can judge."""
    link: str = Field(default="", max_length=1000)
    """Where it is discussed."""
    revision: str | None = Field(default=None, max_length=200)
    """The only commit that is meant; all of the model's when left out."""


class LiftRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    reason: str = Field(min_length=1, max_length=2000)


class FlagRecord(BaseModel):
    id: int
    model: str
    revision: str | None
    kind: FlagKind
    reason: str
    link: str
    by: str
    at: datetime
    lifted_at: datetime | None
    lifted_by: str
    lifted_because: str


class FlagAnswer(BaseModel):
    message: str
    flag: FlagRecord


@router.get("/flags", summary="Every flag, lifted ones too, the latest first")
def read_flags(hub: AHub) -> list[FlagRecord]:
    with hub.reading() as session:
        return [_record(row) for row in list_flags(session)]


@router.post("/flags", status_code=201, responses=FOUND, summary="Warn of a model on all its rows")
def add_flag(request: FlagRequest, hub: AHub) -> FlagAnswer:
    """It takes no row off the board and changes no number; readers can leave flagged rows out."""
    with hub.writing() as session:
        row = flag(
            session,
            request.model,
            kind=request.kind,
            reason=request.reason,
            link=request.link,
            revision=request.revision,
            by=hub.viewer.name,
            now=datetime.now(UTC),
        )
        record = _record(row)
    return FlagAnswer(message=f"Flag {record.id} is on every row of {record.model}.", flag=record)


@router.post("/flags/{flag_id}/lift", responses=FOUND, summary="Take a flag back, with the reason")
def lift_flag(flag_id: Annotated[int, Path(ge=1, le=2**62)], request: LiftRequest, hub: AHub) -> FlagAnswer:
    with hub.writing() as session:
        record = _record(lift(session, flag_id, reason=request.reason, by=hub.viewer.name, now=datetime.now(UTC)))
    return FlagAnswer(message=f"Flag {record.id} of {record.model} is lifted; its history is kept.", flag=record)


def _record(row: Flag) -> FlagRecord:
    return FlagRecord.model_validate(row, from_attributes=True)
