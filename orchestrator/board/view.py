"""What a reader wants to see of a board: which rows, in which order. Pure; ranks stay those of the whole board."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from orchestrator.board.standings import Board, Standing

TEXT_COLUMNS = ("model", "type", "precision")
NUMBER_COLUMNS = ("rank", "average", "parameters", "date")


@dataclass(frozen=True)
class View:
    """A reader's choice; the empty one shows everything by rank."""

    sort: str = "rank"
    """`rank`, `average`, `model`, `type`, `precision`, `parameters`, `date`, or a benchmark's name."""
    descending: bool = False
    search: str = ""
    """Part of a model's name, in any case; `;` between alternatives."""
    types: frozenset[str] = frozenset()
    precisions: frozenset[str] = frozenset()
    smallest: float | None = None
    """In billions of parameters."""
    largest: float | None = None

    @property
    def narrows(self) -> bool:
        """Whether some rows may be left out."""
        return bool(
            self.search.strip(" ;")
            or self.types
            or self.precisions
            or self.smallest is not None
            or self.largest is not None
        )


def sort_names(board: Board) -> tuple[str, ...]:
    """Every column that a board can be sorted by."""
    return (*NUMBER_COLUMNS, *TEXT_COLUMNS, *(benchmark.name for benchmark in board.suite.benchmarks))


def apply_view(board: Board, view: View) -> Board:
    """The board with the rows that fit, in the wanted order. An unknown column sorts by rank."""
    return replace(board, ranked=_arrange(board.ranked, view), apart=_arrange(board.apart, view))


def _arrange(rows: Iterable[Standing], view: View) -> tuple[Standing, ...]:
    kept = [row for row in rows if _fits(row, view)]
    if view.sort in TEXT_COLUMNS:
        kept.sort(key=lambda row: _text(row, view.sort), reverse=view.descending)
        return tuple(kept)
    # Rows without the value come last in either direction.
    known = [row for row in kept if _number(row, view.sort) is not None]
    known.sort(key=lambda row: _number(row, view.sort) or 0.0, reverse=view.descending)
    return (*known, *(row for row in kept if _number(row, view.sort) is None))


def _fits(row: Standing, view: View) -> bool:
    if view.types and row.model_type not in view.types:
        return False
    if view.precisions and row.precision not in view.precisions:
        return False
    billions = row.parameters / 1e9 if row.parameters is not None else None
    if view.smallest is not None and (billions is None or billions < view.smallest):
        return False
    if view.largest is not None and (billions is None or billions > view.largest):
        return False
    wanted = [part.strip().casefold() for part in view.search.split(";") if part.strip()]
    return not wanted or any(part in row.model.casefold() for part in wanted)


def _text(row: Standing, column: str) -> tuple[str, int]:
    text = {"model": row.model, "type": row.model_type, "precision": row.precision}[column]
    return text.casefold(), row.rank or row.evaluation


def _number(row: Standing, column: str) -> float | None:
    if column == "average":
        return row.average
    if column == "parameters":
        return row.parameters
    if column == "date":
        return row.ended_at.timestamp() if row.ended_at else None
    cell = row.cells.get(column)
    if cell is not None:
        return cell.value
    return row.rank if column == "rank" else None
