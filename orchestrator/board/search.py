"""The board's search: `;` between alternatives, `@field:value` for and, and a regular expression where it looks so.

Expressions are matched by RE2, in time that grows with the text and with the expression: so expressions are small and
few, and a search that takes too long ends with nothing found. No pattern of a stranger holds the server up.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import re2

from orchestrator.board.standings import Standing
from orchestrator.errors import EvalyardError

SPECIAL = set("\\^$*+?()[]{}|")
"""Any of these makes the text a regular expression; a dot alone does not, since names have them."""
FIELD = re.compile(r"@(\w+):(\S+)")
FIELDS: dict[str, Callable[[Standing], str | None]] = {
    "model": lambda row: row.model,
    "org": lambda row: row.model.split("/")[0] if "/" in row.model else None,
    "architecture": lambda row: row.architecture,
    "licence": lambda row: row.licence,
    "license": lambda row: row.licence,
    "precision": lambda row: row.precision,
    "type": lambda row: row.model_type,
    "base": lambda row: row.base_model,
    "revision": lambda row: row.revision,
    "flag": lambda row: " ".join(flag.kind for flag in row.flags),
}
WORDS = {"precision", "type"}
"""Fields whose values are few words, matched from their beginning: `float16` is not meant to find `bfloat16`."""
PATTERN_BYTES = 1 << 14
"""Memory for one compiled expression: names need no more, and what is larger takes milliseconds for each row."""
MOST_EXPRESSIONS = 4
"""Of the alternatives, how many are read as expressions."""
SEARCH_SECONDS = 0.5
"""Computing time of one search over a whole board."""
ROWS_BETWEEN_LOOKS = 64
TOO_LONG = "The search took too long, so nothing was looked for. Use fewer or simpler expressions."


class TookTooLong(EvalyardError):
    """A search used up its time."""


Fits = Callable[[Standing], bool]


@dataclass(frozen=True)
class Search:
    """What a reader looks for: a row fits where one of the alternatives does, and every row where there are none."""

    text: str
    alternatives: tuple[Fits, ...] = ()
    has_expressions: bool = False
    problems: tuple[str, ...] = ()
    """What of it could not be used, a sentence each."""

    def fits(self, row: Standing) -> bool:
        return not self.alternatives or any(fits(row) for fits in self.alternatives)

    def find(self, rows: Sequence[Standing | None], *, seconds: float = SEARCH_SECONDS) -> list[int]:
        """Places of the rows that fit.

        Raises:
            TookTooLong: after so much computing time.
        """
        fits = self.alternatives[0] if len(self.alternatives) == 1 else self.fits
        end, found = time.thread_time() + seconds, list[int]()
        for first in range(0, len(rows), ROWS_BETWEEN_LOOKS):
            if self.has_expressions and time.thread_time() > end:
                raise TookTooLong(TOO_LONG)
            some = enumerate(rows[first : first + ROWS_BETWEEN_LOOKS], first)
            found += [place for place, row in some if row is not None and fits(row)]
        return found


@lru_cache(maxsize=256)
def parse_search(text: str) -> Search:
    """What is searched for; an unusable part is left out, or taken as plain text, and said."""
    problems: list[str] = []
    alternatives: list[Fits] = []
    expressions = 0
    for part in text.split(";"):
        fields: list[tuple[str, str]] = []
        for name, value in FIELD.findall(part):
            if name.lower() in FIELDS:
                fields.append((name.lower(), value.casefold()))
            else:
                problems.append(f"There is no field @{name} to search in. There are @{', @'.join(FIELDS)}.")
        words = " ".join(FIELD.sub(" ", part).split())
        if fields or words:
            is_expression = bool(SPECIAL & set(words))
            expressions += is_expression
            if is_expression and expressions > MOST_EXPRESSIONS:
                continue
            alternatives.append(_all_of(fields, _matcher(words, problems) if words else None))
    if expressions > MOST_EXPRESSIONS:
        left_out = expressions - MOST_EXPRESSIONS
        problems.append(f"At most {MOST_EXPRESSIONS} regular expressions are searched for; {left_out} were left out.")
    return Search(text, tuple(alternatives), expressions > 0, tuple(problems))


def _all_of(fields: Sequence[tuple[str, str]], matches: Fits | None) -> Fits:
    """Fits a row whose name matches and whose every field holds its value."""
    if not fields:
        assert matches is not None
        return matches
    wanted = [(FIELDS[name], value, name in WORDS) for name, value in fields]

    def fits(row: Standing) -> bool:
        for read, value, from_start in wanted:
            place = (read(row) or "").casefold().find(value)
            if place < 0 or (from_start and place > 0):
                return False
        return matches is None or matches(row)

    return fits


def _matcher(words: str, problems: list[str]) -> Fits:
    if SPECIAL & set(words):
        options = re2.Options()
        options.case_sensitive, options.log_errors, options.max_mem = False, False, PATTERN_BYTES
        try:
            pattern = re2.compile(words.encode(), options=options)  # of bytes, which takes half the time of text
        except re2.error:
            problems.append(f"‘{words}’ is no regular expression that can be used; it was searched for as plain text.")
        else:
            return lambda row: pattern.search(row.model.encode()) is not None
    folded = words.casefold()
    return lambda row: folded in row.folded
