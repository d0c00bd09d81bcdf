"""Errors as the API tells them: problem+json (RFC 9457) with a sentence, and never a traceback."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from orchestrator import db
from orchestrator.artifacts import ArtifactError, ArtifactMissing
from orchestrator.errors import DatabaseUnusable, EvalyardError, NotFound, NotYet, Refused, WrongState
from submissions.faults import Busy, Fault, HubAway, SubmissionRefused
from submissions.people.refusals import NotAllowed, NotSignedIn, ProviderAway, SignInRefused, TooMany
from submissions.words import shown

log = logging.getLogger(__name__)

STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (SubmissionRefused, 422),
    (HubAway, 503),
    (Busy, 503),
    (NotYet, 503),
    (NotFound, 404),
    (WrongState, 409),
    (Refused, 422),
    (DatabaseUnusable, 503),
    (NotSignedIn, 401),
    (NotAllowed, 403),
    (SignInRefused, 403),
    (TooMany, 429),
    (ProviderAway, 503),
    (EvalyardError, 400),
    (ArtifactMissing, 404),
    (ArtifactError, 503),
)
HANDLED: tuple[type[Exception], ...] = (
    EvalyardError,
    ArtifactError,
    OperationalError,
    RequestValidationError,
    HTTPException,
)
DATABASE_AWAY = (
    "The site's database cannot take this just now. Try again in a minute; operators find the reason in the web "
    "process's log."
)

WANTED = {
    "enum": "'{input}' is not one of {expected}",
    "literal_error": "'{input}' is not one of {expected}",
    "bool_parsing": "'{input}' is neither true nor false",
    "int_parsing": "'{input}' is no whole number",
    "int_from_float": "{input} is no whole number",
    "float_parsing": "'{input}' is no number",
    "greater_than_equal": "{input} is too small; the least is {ge}",
    "less_than_equal": "{input} is too large; the most is {le}",
    "string_too_short": "it is empty",
    "too_short": "it is empty",
    "string_too_long": "it is longer than {max_length} characters",
    "string_type": "it must be text",
}
"""What the commonest errors of a schema mean, by pydantic's name of the error."""


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def problem(
    status: int, detail: str, faults: Sequence[Fault] = (), *, headers: Mapping[str, str] | None = None
) -> ProblemResponse:
    """An error answer."""
    content = {"type": "about:blank", "title": _title(status), "status": status, "detail": detail}
    if faults:
        listed = [{"field": fault.field, "sentence": fault.sentence, "kind": fault.kind} for fault in faults]
        content |= {"faults": listed}
    told = {"www-authenticate": "Bearer"} if status == 401 else {}
    return ProblemResponse(content, status_code=status, headers=told | dict(headers or {}))


def headers_of(error: Exception, status: int) -> dict[str, str]:
    """What an error's answer says in its headers, a page's too: when to come back."""
    if isinstance(error, Busy):
        return {"retry-after": "5"}
    if isinstance(error, NotYet):
        return {"retry-after": "2"}
    if isinstance(error, TooMany):
        return {"retry-after": str(error.retry_after)}
    return {"retry-after": "60"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}


def describe(error: Exception) -> tuple[int, str, tuple[Fault, ...]]:
    """Status, sentence and faults of an error; what nobody foresaw is logged and says no more than that."""
    if isinstance(error, HTTPException):
        return error.status_code, _http_sentence(error), ()
    if isinstance(error, RequestValidationError):
        faults = tuple(fault_of(detail) for detail in error.errors())
        return 422, " ".join(fault.sentence for fault in faults), faults
    for kind, status in STATUSES:
        if isinstance(error, kind):
            return status, str(error), error.faults if isinstance(error, SubmissionRefused) else ()
    if isinstance(error, OperationalError):
        db.log_lost(log, error)  # its own words name hosts and folders: not for everybody
        return 503, DATABASE_AWAY, ()
    log.error("An error that nobody foresaw", exc_info=error)
    return 500, "Something went wrong on the server. Its log (DATA/logs/) says what.", ()


def fault_of(detail: ErrorDetails) -> Fault:
    """A sentence for one thing that a request's schema refuses."""
    path = [str(part) for part in detail["loc"] if part not in ("body", "query", "path")]
    # A union's alternatives are named in the path of its errors.
    field = path[0] if path else "request"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return Fault(field, f"There is no field '{field[:60]}'. The fields are listed under /api/v1/docs.")
    if detail["type"] == "missing":
        return Fault(field, f"The field '{field}' is missing.")
    if detail["type"] == "json_invalid":
        return Fault("request", "The request's body is not valid JSON.")
    if not path and detail["type"] in ("model_attributes_type", "model_type"):
        return Fault(field, "request: the body is no JSON object, or not sent as `Content-Type: application/json`.")
    if detail["type"] == "value_error":
        return Fault(field, f"{field}: {message}")
    facts = {"input": shown(str(detail.get("input")), most=40)} | detail.get("ctx", {})
    if wanted := WANTED.get(detail["type"]):
        return Fault(field, f"{field}: {wanted.format_map(facts)}.")
    return Fault(field, f"{field}: {message[:1].lower()}{message[1:]}.")


def _http_sentence(error: HTTPException) -> str:
    if error.status_code == 404:
        return "There is no such page. The board is at / and the API is described at /api/v1/docs."
    if error.status_code == 405:
        return "This address does not take that method. The API is described at /api/v1/docs."
    return str(error.detail)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
