"""The languages of the interface and their compiled catalogues, which lie beside this file.

A catalogue is written as `zh.po` and compiled to `zh.mo` by `python -m deploy.languages`; both are in the repository,
so that a clean clone and the wheel need no tool for it. What a catalogue lacks stays English.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from gettext import GNUTranslations, NullTranslations
from importlib.resources import files


@dataclass(frozen=True)
class Language:
    """One language of the interface."""

    code: str
    """As in addresses, cookies and names of catalogues."""
    tag: str
    """As in `<html lang>`."""
    name: str
    """In itself."""


ENGLISH = Language("en", "en", "English")
LANGUAGES: Mapping[str, Language] = {
    language.code: language for language in (ENGLISH, Language("zh", "zh-Hans", "中文"))
}


@cache
def catalogue(code: str) -> NullTranslations:
    """What a language says for each message; one that it lacks stays as it is."""
    if code == ENGLISH.code:
        return NullTranslations()
    with (files("submissions.languages") / f"{code}.mo").open("rb") as file:
        return GNUTranslations(file)
