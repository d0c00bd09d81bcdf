"""What each version of an engine knows, and whose model a submission is."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "engineversion",
        sa.Column("engine", sa.String(length=32), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("architectures", sa.JSON(), nullable=False),
        sa.Column("dropped", sa.JSON(), nullable=False),
        sa.Column("quantisations", sa.JSON(), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("engine", "version"),
    )
    with op.batch_alter_table("submission") as batch:
        batch.add_column(sa.Column("organisation", sa.String(), nullable=False, server_default=sa.text("''")))
    op.create_index("submission_organisation", "submission", ["organisation", "submitted_at"])


def downgrade() -> None:
    op.drop_index("submission_organisation", "submission")
    with op.batch_alter_table("submission") as batch:
        batch.drop_column("organisation")
    op.drop_table("engineversion")
