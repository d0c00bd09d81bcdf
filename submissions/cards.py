"""A model card: its licence, how long it is, which model it says it was made from. Read as text, never rendered."""

import re
from dataclasses import dataclass

from submissions.headers import Unreadable
from submissions.repositories import Repository

CARD = "README.md"
LICENCE_LINE = re.compile(
    r"^license:[ \t]*(?:\n[ \t]*-[ \t]*|\[[ \t]*)?[\"']?([\w.+-]{1,60})[\"']?[ \t]*(?:[,\]#].*)?$", re.MULTILINE
)
"""Of several the first."""
NAME_LINE = re.compile(r"^license_name:[ \t]*[\"']?([\w.+ -]{1,60}?)[\"']?[ \t]*$", re.MULTILINE)
LINK_LINE = re.compile(r"^license_link:[ \t]*[\"']?(\S{1,300}?)[\"']?[ \t]*$", re.MULTILINE)
BASE_LINE = re.compile(r"^base_model:[ \t]*(?:\n[ \t]*-[ \t]*)?[\"']?([\w./-]{1,200})[\"']?[ \t]*$", re.MULTILINE)
OTHER = "other"
"""The tag of a licence that has a name of its own."""


@dataclass(frozen=True)
class Card:
    characters: int = 0
    """Of its text, without the header of facts."""
    tag: str | None = None
    """The licence, as the Hub's list calls it; `other` for one that is not on it."""
    name: str | None = None
    link: str | None = None
    base: str | None = None
    """The model that it says it was made from."""

    @property
    def licence(self) -> str | None:
        return self.name if self.tag in (None, OTHER) and self.name else self.tag

    @property
    def has_licence(self) -> bool:
        """Whether it names one: a tag of the Hub's list, or name and link of another."""
        return bool(self.name and self.link) if self.tag in (None, OTHER) else True


NO_CARD = Card()


def read_card(repository: Repository) -> Card:
    """The card; an empty one where there is none that can be read."""
    if CARD not in repository.files:
        return NO_CARD
    try:
        return parse_card(repository.text(CARD))
    except Unreadable:
        return NO_CARD


def parse_card(text: str) -> Card:
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")  # as Windows saves it
    head, body = "", text
    if text.startswith("---"):
        head, _, body = text[3:].partition("\n---")
    return Card(
        characters=len(body.strip()),
        tag=_found(LICENCE_LINE, head),
        name=_found(NAME_LINE, head),
        link=_found(LINK_LINE, head),
        base=_found(BASE_LINE, head),
    )


def _found(line: re.Pattern[str], head: str) -> str | None:
    found = line.search(head)
    return found[1] if found else None
