"""The board's search: `;` between alternatives, `@field:value` for and, and a regular expression where it looks so.

Expressions are matched by RE2, in time that grows with the text and with the expression: so expressions are small and
few, and a search that takes too long ends with nothing found. No pattern of a stranger holds the server up.
"""

import re
import time
from collections.abc import Callable
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


@dataclass(frozen=True)
class Alternative:
    """Fits a row where every field holds its value and the name fits."""

    fields: tuple[tuple[str, str], ...]
    matches: Callable[[Standing], bool]

    def fits(self, row: Standing) -> bool:
        if not self.matches(row):
            return False
        for name, value in self.fields:  # noqa: SIM110  # a generator would take longer than the comparison
            if value not in (FIELDS[name](row) or "").casefold():
                return False
        return True


@dataclass(frozen=True)
class Search:
    alternatives: tuple[Alternative, ...]
    has_expressions: bool = False
    problems: tuple[str, ...] = ()
    """What of it could not be used, a sentence each."""

    def fits(self, row: Standing) -> bool:
        for alternative in self.alternatives:
            if alternative.fits(row):
                return True
        return not self.alternatives

    def within(self, seconds: float = SEARCH_SECONDS) -> Callable[[Standing], bool]:
        """`fits` for one walk over the rows, which ends by itself.

        Raises, when called:
            TookTooLong: after so much computing time.
        """
        if not self.has_expressions:
            return self.fits
        end, rows = time.thread_time() + seconds, 0

        def fits(row: Standing) -> bool:
            nonlocal rows
            rows += 1
            if rows % ROWS_BETWEEN_LOOKS == 0 and time.thread_time() > end:
                raise TookTooLong(TOO_LONG)
            return self.fits(row)

        return fits


@lru_cache(maxsize=256)
def parse_search(text: str) -> Search:
    """What is searched for; an unusable part is left out, or taken as plain text, and said."""
    problems: list[str] = []
    alternatives: list[Alternative] = []
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
            alternatives.append(Alternative(tuple(fields), _matcher(words, problems)))
    if expressions > MOST_EXPRESSIONS:
        left_out = expressions - MOST_EXPRESSIONS
        problems.append(f"At most {MOST_EXPRESSIONS} regular expressions are searched for; {left_out} were left out.")
    return Search(tuple(alternatives), expressions > 0, tuple(problems))


def _matcher(words: str, problems: list[str]) -> Callable[[Standing], bool]:
    if SPECIAL & set(words):
        options = re2.Options()
        options.case_sensitive, options.log_errors, options.max_mem = False, False, PATTERN_BYTES
        try:
            pattern = re2.compile(words, options=options)
        except re2.error:
            problems.append(f"‘{words}’ is no regular expression that can be used; it was searched for as plain text.")
        else:
            return lambda row: pattern.search(row.model) is not None
    folded = words.casefold()
    return lambda row: folded in row.folded
