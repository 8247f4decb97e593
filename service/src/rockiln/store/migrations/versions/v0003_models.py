"""Downloads, pinned commits, accepted licences. Expands only: version 0002 runs on this schema."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "model_task",
        sa.Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("model_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("reason", sa.String(16)),
        sa.Column("bytes_total", sa.BigInteger),
        sa.Column("bytes_done", sa.BigInteger, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("deaths", sa.Integer, nullable=False),
        sa.Column("asked_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_model_task_model_id_seq", "model_task", ["model_id", "seq"])
    op.create_index("ix_model_task_state_seq", "model_task", ["state", "seq"])
    op.create_table(
        "model_lock",
        sa.Column("repository", sa.String(255), primary_key=True),
        sa.Column("commit_id", sa.String(40), nullable=False),
        sa.Column("files", sa.JSON, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "licence_acceptance",
        sa.Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("model_id", sa.String(64), nullable=False),
        sa.Column("licence", sa.Text, nullable=False),
        sa.Column("page", sa.Text, nullable=False),
        sa.Column("commit_id", sa.String(40)),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_licence_acceptance_model_id_seq", "licence_acceptance", ["model_id", "seq"])
