"""Who drained or paused a worker or a cluster, and when."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

COLUMNS = (("worker", "mode"), ("cluster", "paused"))


def upgrade() -> None:
    for table, what in COLUMNS:
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column(f"{what}_by", sa.String(), nullable=False, server_default=sa.text("''")))
            batch.add_column(sa.Column(f"{what}_since", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for table, what in COLUMNS:
        with op.batch_alter_table(table) as batch:
            batch.drop_column(f"{what}_by")
            batch.drop_column(f"{what}_since")
