"""What every request must satisfy before it reaches a page or the API, and the headers that every answer carries.

The site answers to its own names only: this machine's loopback address and, with accounts, its public one. So a foreign
page may neither read it by another name (DNS rebinding) nor post to it (forged requests). No body is read here.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from submissions.problems import problem

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
BODY_BYTES = 64 << 10
"""A submission is a few hundred bytes."""
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

FROM_A_PROXY = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"})
"""Headers that a proxy adds: whoever asks through one may be anywhere, whatever the host it asks for."""
STRICT_TRANSPORT = {"strict-transport-security": "max-age=31536000"}


class Guard:
    """ASGI middleware: refuses foreign hosts, foreign origins and large bodies."""

    def __init__(self, app: ASGIApp, public_url: str = "") -> None:
        self.app = app
        self.public_url = origin_of(public_url) if public_url else ""
        self.headers = SECURITY_HEADERS | (STRICT_TRANSPORT if self.public_url.startswith("https://") else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-cache")
            await send(message)

        headers, scheme = Headers(scope=scope), scope.get("scheme", "http")
        refusal = refuse(scope["method"], headers, scheme=scheme, public_url=self.public_url)
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            refusal = 400, "The address holds a zero character, which no name has and no database takes."
        if refusal is not None:
            await problem(*refusal)(scope, receive, send_guarded)
            return
        body = await read_body(receive) if scope["method"] not in SAFE_METHODS else b""
        if body is None:
            await problem(413, f"The request is larger than {BODY_BYTES >> 10} KiB.")(scope, receive, send_guarded)
            return
        replay = receive if scope["method"] in SAFE_METHODS else _replayed(body, receive)
        # What watches a site asks for headers alone; the server that sends them leaves the body out.
        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        await self.app(asked, replay, send_guarded)


def refuse(method: str, headers: Headers, *, scheme: str, public_url: str = "") -> tuple[int, str] | None:
    """Status and sentence for a request that must not be answered; None for one that may. Pure."""
    host = headers.get("host", "")
    is_public = bool(public_url) and _hostname(host) == urlsplit(public_url).hostname
    if not is_public and _hostname(host) not in LOOPBACK_NAMES:
        if public_url:
            return 421, f"This site is at {public_url} and answers to no other name."
        return 421, "This site answers on this machine's loopback address only, e.g. http://127.0.0.1:8765."
    if not public_url and not FROM_A_PROXY.isdisjoint(headers):
        return 421, (
            "This request came through a proxy, and this site has no accounts: whoever reaches it may do everything. "
            "docs/accounts.md says how to set up accounts; for one person, `ssh -L` reaches it without a proxy."
        )
    if method in SAFE_METHODS:
        return None
    origin = headers.get("origin")
    # Before a proxy that ends TLS, what arrives here says http.
    if origin is not None and origin != (public_url if is_public else f"{scheme}://{host}"):
        return 403, "This request was made by a page of another site, so it was refused. Use this site's own form."
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return 403, "This request was made by a page of another site, so it was refused. Use this site's own form."
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > BODY_BYTES:
        return 413, f"The request is larger than {BODY_BYTES >> 10} KiB."
    return None


async def read_body(receive: Receive) -> bytes | None:
    """The whole body, or None when it is larger than allowed, whatever its headers say."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages: Iterable[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        for message in messages:
            return message
        return await receive()

    return replay


def origin_of(url: str) -> str:
    """The origin of an address as browsers write it: no path, no port that goes without saying."""
    parts = urlsplit(url.lower())
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, usual) else "")


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
