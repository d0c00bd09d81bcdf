"""The board: which evaluations stand where, kept in memory and asked by one request. Reads; never writes."""

from orchestrator.board.columns import Footing, columns_of
from orchestrator.board.living import Boards
from orchestrator.board.request import BoardRequest
from orchestrator.board.standings import Board, Cell, Flagging, Standing, rank_rows, read_board
from orchestrator.board.table import Table
from orchestrator.board.view import Shown, arrange

__all__ = [
    "Board",
    "BoardRequest",
    "Boards",
    "Cell",
    "Flagging",
    "Footing",
    "Shown",
    "Standing",
    "Table",
    "arrange",
    "columns_of",
    "rank_rows",
    "read_board",
]
