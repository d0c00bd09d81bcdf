"""A browser that signs in as a person would, follows the provider's redirect and says where its requests come from."""

import re
from typing import Any

import httpx
from starlette.testclient import TestClient

SITE = "http://127.0.0.1:8765"


class Browser:
    """One person's, or nobody's until they sign in."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def begin(self, next: str = "/") -> str:
        """Go to the provider; returns the address that it sends the browser back to."""
        began = self.client.get("/signin", params={"next": next})
        assert began.status_code == 303, began.text
        sent = httpx.get(began.headers["location"], trust_env=False)
        assert sent.status_code == 303, sent.text
        return sent.headers["location"]

    def come_back(self, address: str) -> httpx.Response:
        return self.client.get(address)

    def sign_in(self, next: str = "/") -> httpx.Response:
        answer = self.come_back(self.begin(next))
        assert answer.status_code == 303, answer.text
        return answer

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        return self.client.get(path, **arguments)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        """As a form or a script of the site's own page does."""
        headers = {"origin": SITE, "sec-fetch-site": "same-origin"} | arguments.pop("headers", {})
        return self.client.post(path, headers=headers, **arguments)

    def token(self, *scopes: str, **request: Any) -> str:
        """A token of this person's."""
        asked = {"name": "tests", "scopes": list(scopes) or ["read", "submit"]} | request
        answer = self.post("/api/v1/tokens", json=asked)
        assert answer.status_code == 201, answer.text
        secret = answer.json()["secret"]
        assert re.fullmatch(r"evy_[A-Za-z0-9_-]{43}", secret)
        return str(secret)

    def take(self, cookies: dict[str, str]) -> None:
        """Have these cookies, as whoever got hold of them."""
        for name, value in cookies.items():
            self.client.cookies.set(name, value, domain="127.0.0.1", path="/")

    @property
    def cookies(self) -> dict[str, str]:
        return dict(self.client.cookies)
