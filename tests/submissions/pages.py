"""Reading a page as a reader would: its text, links and form fields."""

import re
from html.parser import HTMLParser

from starlette.testclient import TestClient


class Page(HTMLParser):
    """Text, links and form fields of a page; stops at a tag that is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []
        self.labels: set[str] = set()
        self.inputs: list[dict[str, str | None]] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        if tag == "a":
            self.links.append(facts.get("href") or "")
        if tag == "label" and facts.get("for"):
            self.labels.add(facts["for"] or "")
        if tag in ("input", "select") and facts.get("type") != "hidden":
            self.inputs.append(facts)

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def page(client: TestClient, path: str, *, status: int = 200) -> Page:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    return Page(answer.text)
