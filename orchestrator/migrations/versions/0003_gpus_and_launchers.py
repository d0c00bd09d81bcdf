"""Several GPUs of a worker, slices, who runs next, measured speeds; idle GPUs and launchers."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempt", sa.Column("devices", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("attempt", sa.Column("restarts", sa.JSON(), nullable=True))
    op.add_column("attempt", sa.Column("spent", sa.JSON(), nullable=True))
    op.add_column("worker", sa.Column("device_count", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("worker", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))
    op.add_column("worker", sa.Column("until", sa.DateTime(timezone=True), nullable=True))
    # SQLite adds no column without a default to a table with rows: the rest may be empty.
    op.add_column("worker", sa.Column("mode", sa.String(length=32), nullable=False, server_default="open"))
    op.add_column("worker", sa.Column("sentence", sa.Text(), nullable=False, server_default=""))
    op.add_column("worker", sa.Column("gpus", sa.JSON(), nullable=True))
    op.add_column("job", sa.Column("turn_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("job", sa.Column("refused_by", sa.JSON(), nullable=True))
    op.add_column("job", sa.Column("benchmarks_done", sa.JSON(), nullable=True))
    op.add_column("job", sa.Column("longest", sa.Integer(), nullable=True))
    op.execute("UPDATE job SET turn_at = created_at")
    op.create_index("job_turn", "job", ["state", "stage", "turn_at"], unique=False)
    op.add_column("worker", sa.Column("warm", sa.JSON(), nullable=True))
    op.create_table(
        "health",
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("succeeded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.JSON(), nullable=False),
        sa.Column("held_back_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("times_held_back", sa.Integer(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("worker"),
    )
    op.create_table(
        "speed",
        sa.Column("engine", sa.String(length=32), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("suite", sa.String(), nullable=False),
        sa.Column("size_class", sa.Integer(), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("engine_seconds", sa.Float(), nullable=False),
        sa.Column("start_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("engine", "device", "suite", "size_class"),
    )
    op.create_table(
        "cluster",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("held_by", sa.String(), nullable=False),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "launch",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("handle", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("running_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ending_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_death", sa.Boolean(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_launch_cluster", "launch", ["cluster"])


def downgrade() -> None:
    op.drop_table("launch")
    op.drop_table("cluster")
    op.drop_table("speed")
    op.drop_table("health")
    op.drop_index("job_turn", table_name="job")
    for column in ("longest", "benchmarks_done", "refused_by", "turn_at"):
        op.drop_column("job", column)
    for column in ("warm", "gpus", "sentence", "mode", "until", "memory_bytes", "device_count"):
        op.drop_column("worker", column)
    for column in ("spent", "restarts", "devices"):
        op.drop_column("attempt", column)
