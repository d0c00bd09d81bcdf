"""Suite versions, the shown one, plans to re-run; harness environments of workers."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    running = sa.text("ended_at IS NULL")
    op.drop_index("attempt_lease", table_name="attempt")
    op.create_index("attempt_lease", "attempt", ["lease_until"], sqlite_where=running, postgresql_where=running)
    op.add_column("worker", sa.Column("harnesses", sa.JSON(), nullable=True))
    with op.batch_alter_table("speed") as speed:
        speed.alter_column("requests", type_=sa.BigInteger(), existing_type=sa.Integer(), existing_nullable=False)
    op.add_column("worker", sa.Column("host", sa.String(), nullable=False, server_default=""))
    op.add_column("evaluation", sa.Column("rerun_id", sa.Integer(), nullable=True))
    op.add_column("evaluation", sa.Column("rerun_of", sa.Integer(), nullable=True))
    op.create_index("ix_evaluation_rerun_id", "evaluation", ["rerun_id"])
    op.create_index("ix_evaluation_rerun_of", "evaluation", ["rerun_of"])
    op.create_table(
        "suiteversion",
        sa.Column("suite", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("suite", "version"),
    )
    op.create_table(
        "shownversion",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("suite", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("rerun_id", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("shown_version_newest", "shownversion", ["suite", "id"])
    op.create_table(
        "rerun",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("suite", sa.String(), nullable=False),
        sa.Column("from_version", sa.String(), nullable=False),
        sa.Column("to_version", sa.String(), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("coverage_goal", sa.Float(), nullable=True),
        sa.Column("first", sa.String(), nullable=False),
        sa.Column("budget_seconds", sa.BigInteger(), nullable=True),
        sa.Column("spent_seconds", sa.Float(), nullable=False),
        sa.Column("only", sa.JSON(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("made_by", sa.String(), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("estimate", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_rerun_suite", "rerun", ["suite"])
    op.create_index("ix_rerun_state", "rerun", ["state"])
    op.create_table(
        "rerunbenchmark",
        sa.Column("rerun_id", sa.Integer(), nullable=False),
        sa.Column("sheet_class", sa.String(), nullable=False),
        sa.Column("benchmark", sa.String(), nullable=False),
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("evaluations", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("new_requests", sa.Integer(), nullable=False),
        sa.Column("new_tokens", sa.BigInteger(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluation.id"]),
        sa.ForeignKeyConstraint(["rerun_id"], ["rerun.id"]),
        sa.PrimaryKeyConstraint("rerun_id", "sheet_class", "benchmark"),
    )
    op.create_table(
        "notice",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("evaluation_id", sa.Integer(), nullable=True),
        sa.Column("rerun_id", sa.Integer(), nullable=True),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("spread_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluation.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_index("notice_open", "notice", ["spread_at"])
    op.create_table(
        "delivery",
        sa.Column("notice_id", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["notice_id"], ["notice.id"]),
        sa.PrimaryKeyConstraint("notice_id", "target"),
    )
    op.create_index("delivery_due", "delivery", ["state", "due_at"])


def downgrade() -> None:
    op.drop_index("attempt_lease", table_name="attempt")
    op.create_index("attempt_lease", "attempt", ["lease_until"])
    for table in ("delivery", "notice", "rerunbenchmark", "rerun", "shownversion", "suiteversion"):
        op.drop_table(table)
    op.drop_index("ix_evaluation_rerun_of", table_name="evaluation")
    op.drop_index("ix_evaluation_rerun_id", table_name="evaluation")
    op.drop_column("evaluation", "rerun_of")
    op.drop_column("evaluation", "rerun_id")
    op.drop_column("worker", "host")
    op.drop_column("worker", "harnesses")
