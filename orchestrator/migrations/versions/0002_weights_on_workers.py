"""Which weights lie on a worker's host."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("worker", sa.Column("weights", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("worker", "weights")
