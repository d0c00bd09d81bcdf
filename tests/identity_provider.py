"""A small OpenID Connect provider for tests: real discovery, keys, codes with PKCE, ID tokens and userinfo.

It lets in whoever `person` says. What it signs can be spoiled, to see that the site refuses it.
"""

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "evalyard-tests", "a secret of tests"


@dataclass
class IdentityProvider:
    """What it knows; tests change it between requests."""

    issuer: str = ""
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "u-1", "preferred_username": "ada"})
    """Claims of whoever signs in next."""
    spoilt: dict[str, Any] = field(default_factory=dict)
    """Claims that are put into ID tokens instead of the right ones; None leaves one out."""
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "k1"}))
    signs_with: RSAKey | None = None
    """Another key than the published one."""
    algorithm: str = "RS256"
    key_id: str = "k1"
    is_away: bool = False
    """Whether it answers every code with a fault of its own."""
    is_silent: bool = False
    """Whether it says nothing of itself."""
    was_asked: threading.Event = field(default_factory=threading.Event)
    """Set when somebody asks what it says of itself."""
    may_answer: threading.Event = field(default_factory=threading.Event)
    """What it waits for before it says so, where `hangs`."""
    hangs: bool = False
    codes: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Paths that were asked for."""

    def describe(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            "code_challenge_methods_supported": ["S256"],
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Where a browser goes next, with a code."""
        assert query["client_id"] == CLIENT
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.codes[code] = query | {"person": self.person}
        return query["redirect_uri"] + "?" + urlencode({"code": code, "state": query["state"]})

    def redeem(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        """The tokens of a code; None for one that does not hold, or was used."""
        asked = self.codes.pop(form.get("code", ""), None)
        proof = base64.b64encode(f"{CLIENT}:{SECRET.replace(' ', '+')}".encode()).decode()
        plain = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if asked is None or authorization not in (f"Basic {proof}", f"Basic {plain}"):
            return None
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != asked["code_challenge"]:
            return None
        if form.get("redirect_uri") != asked["redirect_uri"]:
            return None
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims |= {"sub": asked["person"]["sub"]} | self.spoilt
        claims = {name: value for name, value in claims.items() if value is not None}
        signed = self._signed(claims)
        access = json.dumps(asked["person"])
        return {"access_token": base64.urlsafe_b64encode(access.encode()).decode(), "token_type": "Bearer"} | {
            "id_token": signed,
            "expires_in": 300,
        }

    def _signed(self, claims: dict[str, Any]) -> str:
        header = {"alg": self.algorithm, "kid": self.key_id}
        if self.algorithm == "RS256":
            return jwt.encode(header, claims, self.signs_with or self.key)
        # Two old tricks: the public key taken for a shared secret, and no signature at all.
        said = ".".join(_plain(json.dumps(part).encode()) for part in (header, claims))
        if self.algorithm == "none":
            return f"{said}."
        return f"{said}.{_plain(hmac.digest(self.key.as_pem(private=False), said.encode(), 'sha256'))}"


def _plain(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@contextmanager
def running_provider() -> Iterator[IdentityProvider]:
    provider = IdentityProvider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            provider.asked.append(parts.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if parts.path == "/.well-known/openid-configuration":
                provider.was_asked.set()
                if provider.hangs:
                    provider.may_answer.wait(20)
                self._answer(provider.describe(), status=503 if provider.is_silent else 200)
            elif parts.path == "/keys":
                self._answer({"keys": [provider.key.as_dict(private=False) | {"use": "sig", "alg": "RS256"}]})
            elif parts.path == "/authorize":
                self.send_response(303)
                self.send_header("location", provider.authorize(query))
                self.end_headers()
            elif parts.path == "/userinfo":
                token = self.headers["authorization"].removeprefix("Bearer ")
                self._answer(json.loads(base64.urlsafe_b64decode(token)))
            else:
                self._answer({"error": "not_found"}, status=404)

        def do_POST(self) -> None:
            provider.asked.append(self.path)
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            found = provider.redeem(form, self.headers.get("authorization", ""))
            if provider.is_away:
                self._answer({}, status=503)
                return
            self._answer(found or {"error": "invalid_grant"}, status=200 if found else 400)

        def _answer(self, content: dict[str, Any], *, status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
