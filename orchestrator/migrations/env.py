"""Alembic's entry: runs the migrations on the connection that `orchestrator.db.migrate` hands over, and no other."""

from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from sqlmodel import AutoString, SQLModel

from orchestrator import tables


def plain_types(kind: str, item: Any, autogen_context: Any) -> str | Literal[False]:
    """Migrations name the database's types, not ours: they must still run when ours have changed."""
    if kind != "type":
        return False
    if isinstance(item, tables.UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if isinstance(item, sa.Enum):
        return f"sa.String({item.length})"
    return "sa.String()" if isinstance(item, AutoString) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    transactional_ddl=True,
    render_as_batch=context.config.attributes.get("batch", True),
    render_item=plain_types,
)
with context.begin_transaction():
    context.run_migrations()
