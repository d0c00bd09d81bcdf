"""Brings the catalogues of the interface up to date: `python -m deploy.languages`. Tests fail while they are not.

What templates and pages, published ones too, and `submissions/languages/terms.py` say is put into each `.po` file. A
person translates it there, and it is compiled to the `.mo` file beside it. Both are in the repository.
"""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_file
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from submissions.languages import LANGUAGES
from submissions.languages.catalogues import ENGLISH

SUBMISSIONS = Path(__file__).resolve().parent.parent / "submissions"
TERMS = SUBMISSIONS / "languages" / "terms.py"
TEMPLATES = ("templates", "publishing/pages")
MODULES = ("pages", "publishing")
HEADER = "# Made by `python -m deploy.languages`; translations are by hand."
WIDTH = 120
NEVER = datetime(2000, 1, 1, tzinfo=UTC)
TRANSLATED = tuple(code for code in LANGUAGES if code != ENGLISH.code)


def sources() -> list[tuple[Path, str]]:
    """Every file that says something to readers, with the extractor that reads it."""
    templates = [path for folder in TEMPLATES for path in sorted((SUBMISSIONS / folder).glob("**/*.html"))]
    modules = [TERMS, *(path for folder in MODULES for path in sorted((SUBMISSIONS / folder).glob("*.py")))]
    return [(path, "jinja2.ext:babel_extract") for path in templates] + [(path, "python") for path in modules]


def messages() -> Catalog:
    """All that is said, in English."""
    found = Catalog()
    for path, extractor in sources():
        options = {"trimmed": "true", "newstyle_gettext": "true", "silent": "false"}
        keywords = {"_": None, "N_": None, "gettext": None, "ngettext": (1, 2)}
        for _, message, _, _ in extract_from_file(extractor, path, keywords=keywords, options=options):
            found.add(message, locations=[(path.relative_to(SUBMISSIONS).as_posix(), 1)])
    return found


def source_of(code: str) -> Path:
    return SUBMISSIONS / "languages" / f"{code}.po"


def read(code: str) -> Catalog:
    """A language's catalogue as it lies in the repository; an empty one where there is none."""
    path = source_of(code)
    if not path.exists():
        return Catalog(locale=code)
    with path.open("rb") as file:
        return read_po(file, locale=code)


def brought_up_to_date(code: str) -> Catalog:
    """The catalogue with every message that is said now; of those no longer said, none is kept."""
    catalogue = read(code)
    catalogue.update(messages(), no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    catalogue.header_comment = HEADER
    return catalogue


def as_text(catalogue: Catalog) -> bytes:
    """The `.po` file: sorted by message, with no dates or lines in it, so that only what changed differs."""
    with BytesIO() as file:
        write_po(file, catalogue, width=WIDTH, omit_header=False, sort_output=True, include_lineno=False)
        return _without_dates(file.getvalue())


def compiled(catalogue: Catalog) -> bytes:
    """The `.mo` file; its dates are always the same, so that it is too."""
    catalogue.creation_date = catalogue.revision_date = NEVER
    with BytesIO() as file:
        write_mo(file, catalogue)
        return file.getvalue()


def untranslated(catalogue: Catalog) -> list[Message]:
    """The messages that the language lacks, whole or in part."""
    return [message for message in catalogue if message.id and not all(_strings(message))]


def _strings(message: Message) -> Iterable[str]:
    return message.string if isinstance(message.string, list | tuple) else (message.string or "",)


def _without_dates(text: bytes) -> bytes:
    """Without the header's lines that change at each run or name nobody."""
    unwanted = (
        "POT-Creation-Date",
        "PO-Revision-Date",
        "Generated-By",
        "Last-Translator",
        "Language-Team",
        "Report-Msgid",
        "Project-Id",
    )
    lines = text.decode().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(tuple(f'"{name}' for name in unwanted))).encode()


def main() -> int:
    for code in TRANSLATED:
        source = source_of(code)
        source.write_bytes(as_text(brought_up_to_date(code)))
        catalogue = read(code)
        source.with_suffix(".mo").write_bytes(compiled(catalogue))
        missing = untranslated(catalogue)
        print(f"{LANGUAGES[code].name}: {len(catalogue)} messages, {len(missing)} not translated")
        for message in missing:
            print(f"  {message.id!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
