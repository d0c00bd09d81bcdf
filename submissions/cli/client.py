"""Speaks to the hub's HTTP API for the command line. An error of the API becomes an error with its sentence."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from orchestrator.errors import EvalyardError
from orchestrator.program import DEFAULT_URL, data_here, default_data, program
from submissions.cli.credentials import find_token

SECONDS = 60.0
SUBMIT_SECONDS = 900.0
"""A folder with large weights is read whole for its digest before the answer comes."""


class ServerAway(EvalyardError):
    """No hub answers at the address."""


class ApiRefused(EvalyardError):
    """The hub answered with a problem."""

    def __init__(self, sentence: str, *, problem: dict[str, Any], status: int = 0, retry_after: float = 0.0) -> None:
        """`retry_after`: seconds after which it may be asked again, where the hub said so."""
        super().__init__(sentence)
        self.problem = problem
        self.status = status
        self.retry_after = retry_after


def hub_url() -> str:
    """EVALYARD_URL; else the address that a running `evalyard up` left in the data folder; else the default one."""
    given = os.environ.get("EVALYARD_URL", "").strip()
    if given:
        return given.rstrip("/")
    data = os.environ.get("EVALYARD_DATA") or default_data()
    try:
        found = (Path(data).expanduser() / "url").read_text(encoding="utf-8").strip()
    except OSError:
        return DEFAULT_URL
    return found or DEFAULT_URL


class Client:
    """The API of one hub."""

    def __init__(self, url: str | None = None, *, token: str | None = None) -> None:
        """`token`: another one than the environment's or the kept one; empty for none."""
        self.url = url or hub_url()
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ServerAway(f"EVALYARD_URL is '{self.url}', which is no address. Write it as {DEFAULT_URL}.")
        self._token = find_token(self.url) if token is None else token

    def get(self, path: str, *, timeout: float = SECONDS, **query: Any) -> Any:
        """The JSON at this path."""
        return self._send("GET", path, timeout=timeout, params=_given(query)).json()

    def get_text(self, path: str, **query: Any) -> str:
        return self._send("GET", path, params=_given(query)).text

    def post(self, path: str, content: dict[str, Any] | None = None) -> Any:
        return self._send("POST", path, json=content if content is not None else {}, timeout=SUBMIT_SECONDS).json()

    def put(self, path: str, content: dict[str, Any] | None = None) -> Any:
        return self._send("PUT", path, json=content).json()

    def delete(self, path: str) -> Any:
        return self._send("DELETE", path).json()

    def page(self, path: str) -> str:
        """Address of a page for people."""
        return f"{self.url}{path}"

    def _send(self, method: str, path: str, *, timeout: float = SECONDS, **arguments: Any) -> httpx.Response:
        # A proxy of the environment is never meant for this machine's own address.
        is_local = urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            with httpx.Client(trust_env=not is_local, timeout=timeout) as client:
                answer = client.request(method, f"{self.url}/api/v1{path}", headers=headers, **arguments)
        except httpx.ReadTimeout as error:
            raise ServerAway(
                f"{self.url} did not answer within {timeout:g} s. Try again; "
                "if it stays so, the web.log of its data folder says why."
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            with_data = f" --data {found}" if (found := data_here()) else ""
            raise ServerAway(
                f"No Evalyard answers at {self.url}. Start it: {program()} up{with_data}. "
                "If it runs elsewhere, set EVALYARD_URL to its address."
            ) from error
        if answer.is_success:
            return answer
        try:
            problem = answer.json()
            sentence = str(problem["detail"])
        except (ValueError, KeyError, TypeError):
            raise ServerAway(
                f"{self.url} answered with status {answer.status_code} and is not an Evalyard. Check EVALYARD_URL."
            ) from None
        said = answer.headers.get("retry-after", "")
        wait = float(said) if said.isdecimal() else 0.0
        raise ApiRefused(sentence, problem=problem, status=answer.status_code, retry_after=wait)


def segment(text: str) -> str:
    """A part of a path."""
    return quote(text, safe="")


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}
