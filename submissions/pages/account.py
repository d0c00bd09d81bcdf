"""Signing in and out, and the page of one's own account with its tokens."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response

from orchestrator import db
from orchestrator.errors import Refused
from orchestrator.people import Scope
from submissions.context import AHub, Hub
from submissions.faults import Busy, HubAway
from submissions.pages.fields import read_fields
from submissions.pages.rendering import render
from submissions.people import hub_tokens, operations, own_targets, persons, sessions, signing_in, tokens
from submissions.people.operations import HubTokenRequest, MadeToken, OwnTargetRequest, TargetKind, TokenRequest
from submissions.problems import fault_of

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
NOT_KEPT = {"cache-control": "no-store"}
MOST_FIELDS, TOO_MANY_FIELDS = 10, "The form has more fields than the one at /account. Use that one."


@router.get("/signin")
def sign_in(hub: AHub, next: Annotated[str, Query(max_length=1000)] = "/") -> Response:
    """Off to the provider; who is signed in already goes on."""
    if hub.viewer.role is not None:
        return RedirectResponse(signing_in.own_path(next), status_code=303)
    begun = signing_in.begin(hub, next, datetime.now(UTC))
    answer = RedirectResponse(begun.address, status_code=303, headers=NOT_KEPT)
    signing_in.sign_in_cookie(hub.settings).set(answer, begun.secret, lasts=signing_in.LASTS)
    return answer


@router.get("/signin/back")
def come_back(
    request: Request,
    hub: AHub,
    state: Annotated[str, Query(max_length=500)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
) -> Response:
    """From the provider, with a code or without."""
    accounts = hub.need_accounts()
    header = request.headers.get("cookie")
    cookie = signing_in.sign_in_cookie(hub.settings)
    signed_in = signing_in.finish(
        hub,
        state=state,
        code=code,
        secret=cookie.read(header),
        old_session=accounts.cookie.read(header),
        now=datetime.now(UTC),
    )
    answer = RedirectResponse(signed_in.next, status_code=303, headers=NOT_KEPT)
    accounts.cookie.set(answer, signed_in.secret, lasts=sessions.LASTS)
    cookie.clear(answer)
    return answer


@router.post("/signout")
def sign_out(request: Request, hub: AHub) -> Response:
    """End this browser's session here; the provider's own is not touched."""
    accounts = hub.need_accounts()
    with db.session(hub.engine) as session:
        sessions.end(session, accounts.digester, accounts.cookie.read(request.headers.get("cookie")))
    answer = RedirectResponse("/", status_code=303, headers=NOT_KEPT | {"clear-site-data": '"cache"'})
    accounts.cookie.clear(answer)
    return answer


@router.get("/account")
def show_account(hub: AHub) -> Response:
    return _page(hub)


@router.post("/account/tokens")
async def make_token(request: Request, hub: AHub) -> Response:
    """Make a token and show it, this once."""
    given = await read_fields(request, most=MOST_FIELDS, otherwise=TOO_MANY_FIELDS)
    values = dict(given)
    asked = {
        "name": values.get("name", ""),
        "scopes": [value for name, value in given if name == "scope"],
        "days": values.get("days") or None,
    }
    try:
        wanted = TokenRequest.model_validate(asked)
    except ValidationError as error:
        faults = [fault_of(detail).sentence for detail in error.errors(include_url=False)]
        return await run_in_threadpool(_page, hub, faults=faults, status=422)
    made = await run_in_threadpool(operations.create_token, wanted, hub)
    return await run_in_threadpool(_page, hub, made=made)


@router.post("/account/tokens/{token_id}/revoke")
def revoke_token(token_id: Annotated[int, Path(ge=1, le=2**31 - 1)], hub: AHub) -> Response:
    operations.revoke_token(token_id, hub)
    return RedirectResponse("/account", status_code=303)


@router.post("/account/targets")
async def keep_target(request: Request, hub: AHub) -> Response:
    """Be told by mail or webhook; a webhook's address is not shown again."""
    given = dict(await read_fields(request, most=MOST_FIELDS, otherwise=TOO_MANY_FIELDS))
    try:
        kind: TargetKind = "mail" if given.get("kind") == "mail" else "webhook"
        wanted = OwnTargetRequest(url=given.get("url") or None)
        await run_in_threadpool(operations.keep_own_target, kind, wanted, hub)
    except (Refused, ValidationError) as error:
        sentence = error.sentence if isinstance(error, Refused) else "A webhook's address has 1,000 characters at most."
        return await run_in_threadpool(_page, hub, target_fault=sentence, status=422)
    return RedirectResponse("/account#told", status_code=303)


@router.post("/account/targets/{kind}/remove")
def remove_target(kind: TargetKind, hub: AHub) -> Response:
    operations.remove_own_target(kind, hub)
    return RedirectResponse("/account#told", status_code=303)


@router.post("/account/hub-token")
async def keep_hub_token(request: Request, hub: AHub) -> Response:
    """Read gated models with a token of theirs; it is not shown again."""
    given = dict(await read_fields(request, most=MOST_FIELDS, otherwise=TOO_MANY_FIELDS))
    try:
        wanted = HubTokenRequest.model_validate({"token": given.get("token", "")})
        await run_in_threadpool(operations.keep_hub_token, wanted, hub)
    except (Refused, HubAway, Busy) as error:
        status = 422 if isinstance(error, Refused) else 503
        return await run_in_threadpool(_page, hub, hub_token_fault=str(error), status=status)
    except ValidationError:
        sentence = "Paste the token itself: it is empty, or longer than any."
        return await run_in_threadpool(_page, hub, hub_token_fault=sentence, status=422)
    return RedirectResponse("/account#hub", status_code=303)


@router.post("/account/hub-token/remove")
def remove_hub_token(hub: AHub) -> Response:
    operations.remove_hub_token(hub)
    return RedirectResponse("/account#hub", status_code=303)


def _page(
    hub: Hub,
    *,
    made: MadeToken | None = None,
    faults: list[str] | None = None,
    target_fault: str = "",
    hub_token_fault: str = "",
    status: int = 200,
) -> Response:
    viewer, person, own, targets, hub_token = hub.viewer, None, [], [], None
    if viewer.person is not None:
        means = hub.need_accounts().means
        with hub.reading() as session:
            targets = own_targets.list_targets(session, means, viewer.person)
            own = operations.as_records(tokens.list_tokens(session, viewer.person, datetime.now(UTC)))
            person = persons.find(session, viewer.person)
            hub_token = hub_tokens.find(session, viewer.person)
    answer = render(
        "account.html",
        status=status,
        person=person,
        tokens=own,
        made=made,
        faults=faults or [],
        targets=targets,
        target_fault=target_fault,
        hub_token=hub_token,
        hub_token_fault=hub_token_fault,
        can_mail=bool(person and person.email and hub.accounts and hub.accounts.means.has_mail),
        scopes=list(Scope),
        teams=sorted(viewer.teams),
    )
    answer.headers.update(NOT_KEPT)
    return answer
