"""Boards elsewhere whose results are shown here, too; `orchestrator.results.imports` alone writes these rows."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from orchestrator.tables.columns import time_column


class Source(SQLModel, table=True):
    """One published board, by the address that an operator gave; its rows are evaluations that point here."""

    id: int | None = Field(default=None, primary_key=True)
    address: str = Field(unique=True)
    """Absolute path of a folder, or `hf://datasets/org/name`."""
    layout: str
    """`evalyard`, or `open-llm-leaderboard`."""
    revision: str = ""
    """Commit of the Hub repository that was read last; empty for a folder."""
    digest: str = ""
    """Of what was read last: of the manifest, or of all rows."""
    read_at: datetime = time_column()
    rows: int = 0
    """How many of it stand here since."""
    refused: int = 0
    """How many were not taken, as last read."""

    @property
    def shown(self) -> str:
        """What readers are told of where it is: of a folder its last part, as paths of the hub's machine are not."""
        return self.address if self.address.startswith("hf://") else self.address.rstrip("/").rsplit("/", 1)[-1]
