"""Finds out in which language to answer: as the address says, else as chosen before, else as the browser prefers.

`?lang=zh` is answered in Chinese and remembered in a cookie, so that the switch is a plain link. It never reaches a
route: what a page shows does not depend on it.
"""

from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from submissions.languages.catalogues import ENGLISH, LANGUAGES, Language
from submissions.languages.present import PARAMETER, Spoken, set_present

COOKIE = "evalyard-lang"
KEPT_SECONDS = 365 * 86400
MOST_PREFERENCES = 20
"""Of an `accept-language` header; browsers send a handful."""


class Choose:
    """ASGI middleware: says in which language to answer, for all that follows."""

    def __init__(self, app: ASGIApp, *, is_secure: bool = False) -> None:
        self.app = app
        self.is_secure = is_secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not speaks(scope["path"]):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        asked = next((value for name, value in reversed(query) if name == PARAMETER), "")
        if any(name == PARAMETER for name, _ in query):
            query = [(name, value) for name, value in query if name != PARAMETER]
            scope = dict(scope) | {"query_string": urlencode(query).encode("ascii")}
        language = choose(asked, remembered(headers.get("cookie", "")), headers.get("accept-language", ""))
        # A form's answer has an address that no link can open.
        is_page = scope["method"] in ("GET", "HEAD")
        set_present(Spoken(language, "" if is_page else "/", tuple(query) if is_page else ()))

        async def send_spoken(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.add_vary_header("accept-language")
                answer.add_vary_header("cookie")
                if asked in LANGUAGES:
                    answer.append("set-cookie", self._cookie(language))
            await send(message)

        await self.app(scope, receive, send_spoken)

    def _cookie(self, language: Language) -> str:
        secure = "; Secure" if self.is_secure else ""
        return f"{COOKIE}={language.code}; Path=/; Max-Age={KEPT_SECONDS}; HttpOnly; SameSite=Lax{secure}"


def speaks(path: str) -> bool:
    """Whether what lies there is for readers, not for programs. Pure."""
    return not path.startswith(("/static/", "/api/")) or path.endswith("/docs")


def choose(asked: str, before: str, accepted: str) -> Language:
    """The language to answer in: of the address, of the cookie, of an `accept-language` header. Pure."""
    for code in (asked, before):
        if code in LANGUAGES:
            return LANGUAGES[code]
    for tag in preferred(accepted):
        code = tag.split("-")[0]
        if code in LANGUAGES:
            return LANGUAGES[code]
    return ENGLISH


def preferred(accepted: str) -> list[str]:
    """The tags of an `accept-language` header, the most wanted first; those that are not wanted are left out. Pure."""
    weighed: list[tuple[float, str]] = []
    for part in accepted.split(",")[:MOST_PREFERENCES]:
        tag, _, quality = part.strip().lower().partition(";")
        try:
            weight = float(quality.strip().removeprefix("q=")) if quality else 1.0
        except ValueError:
            continue
        if tag and 0 < weight <= 1:
            weighed.append((weight, tag.strip()))
    return [tag for _, tag in sorted(weighed, key=lambda pair: -pair[0])]


def remembered(cookies: str) -> str:
    """The language that a browser's cookies name; empty for none. Pure."""
    for part in cookies.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""
