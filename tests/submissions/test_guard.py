"""Who may ask the site for what: no foreign page, name or flood."""

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.submissions.conftest import problem

FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:9999"},
    {"origin": "https://127.0.0.1:8765"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize(
    "path", ["/api/v1/evaluations", "/api/v1/evaluations/1/cancel", "/submit", "/evaluations/1/retry"]
)
def test_a_foreign_page_cannot_post(client: TestClient, headers: dict[str, str], path: str) -> None:
    assert problem(client.post(path, headers=headers), 403)["detail"].startswith("This request was made by a page")


def test_the_own_page_can_post(client: TestClient, model: Path) -> None:
    headers = {"origin": "http://127.0.0.1:8765", "sec-fetch-site": "same-origin"}
    answer = client.post(
        "/submit", data={"model": str(model), "suite": "demo"}, headers=headers, follow_redirects=False
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/evaluations/1")


def test_a_plain_form_of_another_kind_is_not_taken_for_json(client: TestClient, model: Path) -> None:
    content = json.dumps({"model": str(model), "suite": "demo"})
    problem(client.post("/api/v1/evaluations", content=content, headers={"content-type": "text/plain"}), 422)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "[::1", "10.0.0.8"]
)
def test_a_foreign_name_for_this_machine_is_not_answered(client: TestClient, host: str) -> None:
    for path in ("/", "/api/v1/board"):
        assert "loopback" in problem(client.get(path, headers={"host": host}), 421)["detail"]


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8765", "LOCALHOST"])
def test_every_name_of_the_loopback_is_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/v1/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "name", ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"]
)
def test_without_accounts_nobody_comes_through_a_proxy(client: TestClient, name: str) -> None:
    """A proxy that says the loopback's name would make everybody the one person of this machine."""
    for asked in (
        client.get("/", headers={name: "x"}),
        client.post("/api/v1/evaluations/1/cancel", headers={name: "x"}),
    ):
        assert "docs/accounts.md" in problem(asked, 421)["detail"]


def test_a_large_body_is_refused_before_it_is_read(client: TestClient) -> None:
    assert "larger than" in problem(client.post("/api/v1/evaluations", content=b"x" * 70_000), 413)["detail"]
    parts = (b"x" * 1000 for _ in range(100))
    assert "larger than" in problem(client.post("/api/v1/evaluations", content=parts), 413)["detail"]


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    for path in ("/", "/api/v1/board", "/static/evalyard.css", "/nowhere"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/queue", "/api/v1/board", "/api/v1/health", "/static/evalyard.css", "/nowhere"])
def test_what_may_be_read_may_be_asked_for_its_headers_alone(client: TestClient, path: str) -> None:
    read, asked = client.get(path), client.head(path)
    assert asked.status_code == read.status_code
    assert asked.headers["content-type"] == read.headers["content-type"]
    assert asked.headers["x-content-type-options"] == "nosniff"


def test_what_takes_a_post_alone_says_so_to_whoever_asks_for_its_headers(client: TestClient) -> None:
    assert client.head("/evaluations/1/retry").status_code == client.get("/evaluations/1/retry").status_code == 405
