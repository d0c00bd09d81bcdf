"""Writes of a transaction that wait so that one statement makes many: the cost is that of the statement, not the row.

Within `together(session)` the moves of `orchestrator.arrows` are decided by the rows in memory, which are true because
their evaluations are locked; they are written before the next query of the session, and at the end. Each guard still
holds in the database: where a row was not as it was in memory, nothing of the transaction stays.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Insert, Update, event
from sqlalchemy.orm import ORMExecuteState
from sqlmodel import Session

_KEY = "evalyard_waiting"


class Overtaken(Exception):
    """A row was not as it was in memory. The transaction must be undone, and its moves be made one by one."""


class ApplyAlone(Exception):
    """One of several messages must have a transaction of its own; nothing was changed."""


class Waiting:
    """What is to be written, by statement, in the order in which the statements were first used."""

    def __init__(self) -> None:
        self._rows: dict[Insert | Update, list[Mapping[str, Any]]] = {}
        self._guarded: set[Insert | Update] = set()
        self._touched: dict[tuple[str, object], Insert | Update] = {}

    def add(
        self,
        session: Session,
        statement: Insert | Update,
        values: Mapping[str, Any],
        *,
        row: tuple[str, object] | None = None,
        is_guarded: bool = False,
    ) -> None:
        """Let it be made later: it changes `row` (table and key), and if guarded it must not fail to."""
        if row is not None:
            if row in self._touched:
                self.write(session)  # two changes of one row stay in their order
            self._touched[row] = statement
        self._rows.setdefault(statement, []).append(values)
        if is_guarded:
            self._guarded.add(statement)

    def write(self, session: Session) -> None:
        """Make all that waits.

        Raises:
            Overtaken: a guard failed.
        """
        rows, self._rows = self._rows, {}
        guarded, self._guarded = self._guarded, set()
        self._touched.clear()
        if not rows:
            return
        connection = session.connection()
        for statement, values in rows.items():
            changed = connection.execute(statement, values).rowcount
            if statement in guarded and changed != len(values):
                raise Overtaken(f"{len(values) - changed} of {len(values)} rows were not as they were read.")


def waiting(session: Session) -> Waiting | None:
    """Where writes of this session wait; None where each is to be made at once."""
    found: Waiting | None = session.info.get(_KEY)
    return found


@contextmanager
def together(session: Session) -> Iterator[None]:
    """Let writes wait until the session is asked something, and until the end.

    Raises:
        Overtaken: at the end or at a query.
    """
    mine = session.info[_KEY] = Waiting()

    def before_query(state: ORMExecuteState) -> None:
        if not state.execution_options.get("evalyard_settled"):
            mine.write(session)

    event.listen(session, "do_orm_execute", before_query)
    try:
        yield
        mine.write(session)
    finally:
        event.remove(session, "do_orm_execute", before_query)
        del session.info[_KEY]
