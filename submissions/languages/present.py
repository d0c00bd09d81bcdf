"""The language of what is being answered now, and the address by which the same page is had in another one."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple
from urllib.parse import urlencode

from submissions.languages.catalogues import ENGLISH, LANGUAGES, Language, catalogue

PARAMETER = "lang"


class Spoken(NamedTuple):
    """How a request is answered."""

    language: Language = ENGLISH
    path: str = "/"
    """Where the page is to be had; empty for the very address that was asked for."""
    query: tuple[tuple[str, str], ...] = ()


_present: ContextVar[Spoken] = ContextVar("language", default=Spoken())  # noqa: B039  # a tuple


def set_present(spoken: Spoken) -> None:
    """Say in which language to answer, for the rest of this request."""
    _present.set(spoken)


@contextmanager
def speaking(language: Language) -> Iterator[None]:
    """In this language for so long: for what no request asks for."""
    before = _present.set(Spoken(language))
    try:
        yield
    finally:
        _present.reset(before)


def present_language() -> Language:
    return _present.get().language


def address_in(code: str) -> str:
    """This page in another language."""
    spoken = _present.get()
    return f"{spoken.path}?{urlencode([*spoken.query, (PARAMETER, LANGUAGES[code].code)])}"


def N_(message: str) -> str:  # the name that gettext's tools know
    """The message itself, put into the catalogues: what shows it translates it."""
    return message


def gettext(message: str) -> str:
    """The message in the present language."""
    return catalogue(present_language().code).gettext(message)


def ngettext(one: str, many: str, number: int) -> str:
    """The message that goes with so many, in the present language."""
    return catalogue(present_language().code).ngettext(one, many, number)
