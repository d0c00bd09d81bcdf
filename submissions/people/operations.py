"""The API's operations on accounts: one's own, its tokens, and for admins the people of the site."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from orchestrator.errors import NotFound
from orchestrator.notices.own import WEBHOOK
from orchestrator.notices.webhooks import check_webhook
from orchestrator.people import Role, Scope
from orchestrator.tables import Person, Token
from submissions.context import AHub
from submissions.people import hub_tokens, own_targets, persons, tokens
from submissions.records import Problem

router = APIRouter(prefix="/api/v1")
WITHOUT: dict[int | str, dict[str, Any]] = {409: {"model": Problem, "description": "This site has no accounts."}}
AWAY: dict[int | str, dict[str, Any]] = WITHOUT | {
    503: {"model": Problem, "description": "The Hub does not answer; nothing was kept."}
}
FOUND: dict[int | str, dict[str, Any]] = WITHOUT | {
    404: {"model": Problem, "description": "There is no such thing, or it is not yours."}
}
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
TargetKind = Literal["mail", "webhook"]


class AccountRecord(BaseModel):
    """Who asks, as this site knows them."""

    has_accounts: bool
    """False where one person uses the site, on its machine."""
    person: int | None
    name: str
    role: Role
    teams: list[str]
    scopes: list[Scope]
    """What may be done by the way in which you came: everything for a browser, a token's own scopes."""


class TokenRecord(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    prefix: str
    """Its first characters."""
    scopes: list[Scope]
    made_at: datetime
    used_at: datetime | None
    """To the hour."""
    expires_at: datetime | None


class TokenRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, use_attribute_docstrings=True)

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")
    """What you know it by, such as the host that it is for."""
    scopes: list[Scope] = Field(default=[Scope.READ, Scope.SUBMIT], min_length=1, max_length=3)
    """What it may be used for."""
    days: int | None = Field(default=90, ge=1, le=3650)
    """How long it is good for; null for ever."""


class MadeToken(BaseModel):
    message: str
    secret: str
    """The token itself: it is shown this once and kept nowhere."""
    token: TokenRecord


class TokenAnswer(BaseModel):
    message: str
    token: TokenRecord


class OwnTargetRecord(BaseModel):
    kind: TargetKind
    address: str
    """An e-mail address, or a webhook's host alone."""
    made_at: datetime
    trouble: str = ""
    """Why the last message is not taken yet; it is tried again for about 18 hours."""


class OwnTargetRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    url: str | None = Field(default=None, max_length=1000)
    """Of a webhook: https, and on the internet unless operators allow its host. It is kept encrypted."""


class OwnTargetAnswer(BaseModel):
    message: str


class HubTokenRecord(BaseModel):
    account: str
    """Whose it is on the Hub."""
    made_at: datetime
    """When it was saved here."""


class HubTokenRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    token: SecretStr = Field(min_length=1, max_length=500)
    """A token of your account on the Hub that may read and nothing more. It is kept encrypted and never shown."""


class HubTokenAnswer(BaseModel):
    message: str


class PersonRecord(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    subject: str
    """The provider's name of them: what EVALYARD_ADMINS takes."""
    email: str | None
    role: Role
    blocked: bool
    made_at: datetime
    seen_at: datetime


class PersonRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    role: Role | None = None
    """What they are from now on; as it was when left out."""
    blocked: bool | None = None
    """Whether they are kept out: their sessions end, their tokens are refused."""


class PersonAnswer(BaseModel):
    message: str
    person: PersonRecord


@router.get("/account", summary="Who you are here, and what you may do")
def read_account(hub: AHub) -> AccountRecord:
    viewer = hub.viewer
    assert viewer.role is not None
    return AccountRecord(
        has_accounts=viewer.has_accounts,
        person=viewer.person,
        name=viewer.name,
        role=viewer.role,
        teams=sorted(viewer.teams),
        scopes=[scope for scope in Scope if scope in viewer.scopes],
    )


@router.get("/tokens", responses=WITHOUT, summary="Your tokens that can be used")
def list_tokens(hub: AHub) -> list[TokenRecord]:
    hub.need_accounts()
    assert hub.viewer.person is not None
    with hub.reading() as session:
        return as_records(tokens.list_tokens(session, hub.viewer.person, datetime.now(UTC)))


@router.post("/tokens", status_code=201, responses=WITHOUT, summary="Make a token; its secret is shown this once")
def create_token(request: TokenRequest, hub: AHub) -> MadeToken:
    digester = hub.need_accounts().digester
    with hub.writing() as session:
        made = tokens.create(
            session,
            digester,
            hub.viewer,
            name=request.name,
            scopes=request.scopes,
            days=request.days,
            now=datetime.now(UTC),
        )
    message = f"Made token {made.row.id}. Keep it now: it is not shown again."
    return MadeToken(message=message, secret=made.secret, token=TokenRecord.model_validate(made.row))


@router.delete("/tokens/{token_id}", responses=FOUND, summary="Revoke one of your tokens")
def revoke_token(token_id: Number, hub: AHub) -> TokenAnswer:
    hub.need_accounts()
    with hub.writing() as session:
        row = tokens.revoke(session, hub.viewer, token_id, datetime.now(UTC))
    return TokenAnswer(
        message=f"Revoked token {token_id} ({row.name}). It is refused from now on.",
        token=TokenRecord.model_validate(row),
    )


@router.get("/account/targets", responses=WITHOUT, summary="How you are told that an evaluation of yours has ended")
def list_own_targets(hub: AHub) -> list[OwnTargetRecord]:
    means = hub.need_accounts().means
    assert hub.viewer.person is not None
    with hub.reading() as session:
        found = own_targets.list_targets(session, means, hub.viewer.person)
    return [OwnTargetRecord(**one._asdict()) for one in found]


@router.put("/account/targets/{kind}", responses=WITHOUT, summary="Be told by mail or webhook")
def keep_own_target(kind: TargetKind, request: OwnTargetRequest, hub: AHub) -> OwnTargetAnswer:
    """Mail goes to the address that your provider has verified; a webhook is posted JSON."""
    means = hub.need_accounts().means
    url = check_webhook(request.url or "", means.allowed) if kind == WEBHOOK else request.url or ""
    with hub.writing() as session:
        own_targets.keep_target(session, means, hub.viewer, kind, url=url, now=datetime.now(UTC))
    return OwnTargetAnswer(message=f"You are told by {kind} when an evaluation of yours has ended.")


@router.delete("/account/targets/{kind}", responses=FOUND, summary="Be told no more by mail or webhook")
def remove_own_target(kind: TargetKind, hub: AHub) -> OwnTargetAnswer:
    hub.need_accounts()
    with hub.writing() as session:
        own_targets.remove_target(session, hub.viewer, kind)
    return OwnTargetAnswer(message=f"You are not told by {kind} any more.")


@router.get("/account/hub-token", responses=FOUND, summary="Whose token of the Hub your gated models are read with")
def read_hub_token(hub: AHub) -> HubTokenRecord:
    hub.need_accounts()
    assert hub.viewer.person is not None
    with hub.reading() as session:
        kept = hub_tokens.find(session, hub.viewer.person)
    if kept is None:
        raise NotFound("You have saved no token of the Hub here.")
    return HubTokenRecord(**kept._asdict())


@router.put("/account/hub-token", responses=AWAY, summary="Have your gated models read with a token of yours")
def keep_hub_token(request: HubTokenRequest, hub: AHub) -> HubTokenAnswer:
    """For models that you may read on the Hub and this site's server may not. It replaces the one before."""
    sealer, token = hub.need_accounts().means.sealer, request.token.get_secret_value().strip()
    with hub_tokens.places.taken(hub.viewer.person):
        account = hub_tokens.ask_whose(token)
    with hub.writing() as session:
        hub_tokens.keep(session, sealer, hub.viewer, token, account=account, now=datetime.now(UTC))
    return HubTokenAnswer(message=f"Models that only {account} may read on the Hub are read with this token now.")


@router.delete("/account/hub-token", responses=FOUND, summary="Forget your token of the Hub")
def remove_hub_token(hub: AHub) -> HubTokenAnswer:
    """What runs goes on; what waits for its token fails and can be retried with another."""
    hub.need_accounts()
    with hub.writing() as session:
        hub_tokens.remove_own(session, hub.viewer)
    return HubTokenAnswer(message="Forgot your token of the Hub. To end it everywhere, revoke it there.")


@router.get("/people", responses=WITHOUT, summary="Who has signed in here, by their number")
def list_people(
    hub: AHub,
    after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 200,
) -> list[PersonRecord]:
    hub.need_accounts()
    with hub.reading() as session:
        found: Sequence[Person] = persons.list_people(session, after=after, limit=limit)
    return [PersonRecord.model_validate(one) for one in found]


@router.post("/people/{person_id}", responses=FOUND, summary="Give a person another role, or block them")
def change_person(person_id: Number, request: PersonRequest, hub: AHub) -> PersonAnswer:
    hub.need_accounts()
    with hub.writing() as session:
        row = persons.change(session, person_id, role=request.role, blocked=request.blocked)
    is_blocked = " and blocked" if row.blocked else ""
    return PersonAnswer(
        message=f"{row.name} (person {person_id}) is {row.role.value}{is_blocked}.",
        person=PersonRecord.model_validate(row),
    )


def as_records(found: Sequence[Token]) -> list[TokenRecord]:
    return [TokenRecord.model_validate(one) for one in found]
