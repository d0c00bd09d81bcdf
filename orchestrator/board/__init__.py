"""The board: which evaluations stand where, and the same rows as JSON and CSV. Reads; never writes."""

from orchestrator.board.standings import Board, Cell, Standing, rank_rows, read_board
from orchestrator.board.view import View, apply_view

__all__ = ["Board", "Cell", "Standing", "View", "apply_view", "rank_rows", "read_board"]
