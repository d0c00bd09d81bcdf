"""The board: which evaluations stand where, kept in memory and asked by one request. Reads; never writes."""

from orchestrator.board.columns import Footing, columns_of
from orchestrator.board.living import Boards
from orchestrator.board.reading import read_board
from orchestrator.board.request import BoardRequest
from orchestrator.board.standings import Board, Cell, Flagging, Standing, rank_rows
from orchestrator.board.table import Table
from orchestrator.board.view import Line, Shown, arrange

__all__ = [
    "Board",
    "BoardRequest",
    "Boards",
    "Cell",
    "Flagging",
    "Footing",
    "Line",
    "Shown",
    "Standing",
    "Table",
    "arrange",
    "columns_of",
    "rank_rows",
    "read_board",
]
