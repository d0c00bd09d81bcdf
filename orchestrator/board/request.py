"""What a reader wants to see of a board: the one record behind page, API, command line and exports. Pure.

Every choice is in the address, so that a link shows what its sender saw. Names here are those of the address.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlencode

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from orchestrator.wire import Precision

MOST_PINNED = 4
PAGE_ROWS = 50
SIZES = {
    "edge": (None, 3.0, "Edge, up to 3 B"),
    "consumer": (3.0, 7.0, "Consumer, 3 to 7 B"),
    "mid": (7.0, 65.0, "Mid-range, 7 to 65 B"),
    "large": (65.0, None, "Large, from 65 B"),
}
"""Ready-made size ranges, in billions of parameters; those of the Open LLM Leaderboard."""
ALSO_CALLED = {"search": "q", "smallest": "min", "largest": "max"}
"""Names that earlier versions of the API took."""
DIGITS = ".15g"
"""How a number is written that was given: rounded to less it would choose other rows."""

Hidden = Literal["merged", "moe", "flagged", "off-hub", "imported"]
Text = Annotated[str, Field(max_length=200)]


def _without_empty(values: Any) -> Any:
    """A form sends an empty choice for all."""
    return [value for value in values if value != ""] if isinstance(values, list | tuple) else values


def _each_once(values: Any) -> Any:
    """Several may stand in one value, with commas between."""
    return list(dict.fromkeys(",".join(map(str, values)).split(","))) if isinstance(values, list | tuple) else values


def _number(value: Any) -> Any:
    return None if value == "" else value.replace(",", ".") if isinstance(value, str) else value


def _in_utc(at: datetime | None) -> datetime | None:
    if at is None:
        return None
    if not 2000 <= at.year < 3000:
        raise ValueError("no board is of that year")
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


Size = Annotated[Annotated[float, Field(ge=0, lt=1e6, allow_inf_nan=False)] | None, BeforeValidator(_number)]


class BoardRequest(BaseModel):
    """A reader's choice; the empty one shows everything by rank."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    suite: Annotated[Annotated[str, Field(max_length=100)] | None, BeforeValidator(lambda name: name or None)] = None
    """Name of the suite; the one with most results when left out."""
    version: Annotated[str, Field(max_length=100)] = ""
    """Version of the suite; the shown one when left out."""
    q: Text = ""
    """Search: `;` between alternatives; within one `@field:value` and part of a name, or a regular expression."""
    type: Annotated[tuple[Text, ...], BeforeValidator(_without_empty), Field(max_length=20)] = ()
    precision: Annotated[tuple[Precision, ...], BeforeValidator(_without_empty), Field(max_length=20)] = ()
    min: Size = None
    """In billions of parameters."""
    max: Size = None
    """In billions of parameters."""
    hide: Annotated[tuple[Hidden, ...], BeforeValidator(_without_empty), Field(max_length=5)] = ()
    """Kinds of rows to leave out."""
    only: Literal["", "official"] = ""
    """`official` for the providers that this hub calls official."""
    sort: Annotated[str, Field(max_length=100)] = "rank"
    """Name of a column."""
    order: Literal["", "up", "down"] = ""
    """`down` for the largest first."""
    cols: Annotated[tuple[Text, ...], BeforeValidator(_without_empty), Field(max_length=80)] = ()
    """Columns, in their order; the usual ones when left out."""
    show: Literal["", "raw"] = ""
    """`raw` for benchmarks before normalisation."""
    avg: Literal["", "visible"] = ""
    """`visible` for the average over the benchmarks that are shown alone."""
    rank: Literal["", "dynamic"] = ""
    """`dynamic` for places among the rows that are shown."""
    pin: Annotated[
        tuple[Annotated[int, Field(ge=1, le=2**62)], ...],
        BeforeValidator(_without_empty),
        BeforeValidator(_each_once),
        Field(max_length=MOST_PINNED),
    ] = ()
    """Evaluations to keep on top."""
    at: Annotated[datetime | None, BeforeValidator(lambda at: at or None), AfterValidator(_in_utc)] = None
    """The board as it was then."""
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    rows: Annotated[int, Field(ge=0, le=1000)] = 0
    """Rows of a page; 0 for the usual number on a page, and for all rows elsewhere."""

    @classmethod
    def parse(cls, pairs: Iterable[tuple[str, str]]) -> Self:
        """The choice in an address's query; unknown names are left alone.

        Raises:
            ValidationError: a value is none that the name takes.
        """
        return cls.model_validate(_gather(cls, pairs))

    @classmethod
    def parse_kindly(cls, pairs: Iterable[tuple[str, str]]) -> tuple[Self, list[str]]:
        """The same without the choices that make no sense, and their names."""
        values = _gather(cls, pairs)
        ignored: list[str] = []
        while True:
            try:
                return cls.model_validate(values), ignored
            except ValidationError as error:
                bad = {str(each["loc"][0]) for each in error.errors()}
                ignored += sorted(bad)
                values = {name: value for name, value in values.items() if name not in bad}

    @property
    def descending(self) -> bool:
        return self.order == "down"

    @property
    def narrows(self) -> bool:
        """Whether some rows may be left out."""
        return bool(self.q.strip(" ;") or self.filters)

    @property
    def filters(self) -> int:
        """How many filters are set, the search not counted."""
        ranged = self.min is not None or self.max is not None
        return sum(map(bool, (self.type, self.precision, ranged, self.only))) + len(self.hide)

    def pairs(self, **changes: Any) -> list[tuple[str, str]]:
        """Names and values for an address that shows this, with some choices changed; None takes one away.

        A change of what is shown goes back to the first page.
        """
        if changes and "page" not in changes:
            changes["page"] = 1
        return [
            (name, text)
            for name, default in DEFAULTS.items()
            for text in _texts(changes[name] if name in changes else getattr(self, name), default)
        ]

    def query(self, **changes: Any) -> str:
        """`pairs` as an address has them."""
        return Addresses(self).query(**changes)


DEFAULTS: Mapping[str, Any] = {name: field.default for name, field in BoardRequest.model_fields.items()}
"""In the order in which an address has them."""


class Addresses:
    """Addresses of one request with some choices changed; a page has a hundred, so what they share is written once."""

    def __init__(self, asked: BoardRequest) -> None:
        self._parts = {name: _part(name, getattr(asked, name), default) for name, default in DEFAULTS.items()}

    def query(self, **changes: Any) -> str:
        """`BoardRequest.pairs` as an address has them."""
        parts = self._parts
        if changes:
            changed = {name: _part(name, value, DEFAULTS[name]) for name, value in changes.items()}
            parts = parts | {"page": ""} | changed
        return "&".join([part for part in parts.values() if part])


def _part(name: str, value: Any, default: Any) -> str:
    """`name=value` for each value, as an address has them; empty for the default."""
    return "&".join([_quoted(name, text) for text in _texts(value, default)])


@lru_cache(maxsize=2000)
def _quoted(name: str, text: str) -> str:
    return urlencode([(name, text)])


def _texts(value: Any, default: Any) -> list[str]:
    if value is None or value == default:
        return []
    return [_text(one) for one in (value if isinstance(value, list | tuple) else (value,))]


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return f"{value:{DIGITS}}" if isinstance(value, float) else str(value)


def _gather(kind: type[BoardRequest], pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for given, value in pairs:
        name = ALSO_CALLED.get(given, given)
        if given == "descending":
            name, value = "order", "down" if value.lower() in ("true", "1", "yes", "on") else ""
        if name not in kind.model_fields:
            continue
        if isinstance(kind.model_fields[name].default, tuple):
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    return values
