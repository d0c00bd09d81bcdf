"""Series of checkpoints, people's own targets of notices, and which token a token was made with."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "seriespoint",
        sa.Column("evaluation_id", sa.Integer(), sa.ForeignKey("evaluation.id"), nullable=False),
        sa.Column("owner", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("evaluation_id", "owner", "name"),
    )
    op.create_index("series_point_name", "seriespoint", ["name", "owner"])
    op.create_table(
        "owntarget",
        sa.Column("person_id", sa.Integer(), sa.ForeignKey("person.id"), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("person_id", "kind"),
    )
    with op.batch_alter_table("token") as batch:
        batch.add_column(sa.Column("made_with", sa.Integer(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("token") as batch:
        batch.drop_column("made_with")
    op.drop_table("owntarget")
    op.drop_index("series_point_name", table_name="seriespoint")
    op.drop_table("seriespoint")
