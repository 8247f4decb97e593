"""Events, attempts, rungs, refusals, owners. Expands only: version 0001 runs on this schema."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    for column in (
        sa.Column("owner", sa.String(64), nullable=False, server_default=""),
        sa.Column("purpose", sa.String(16), nullable=False, server_default="picture"),
        sa.Column("estimated_seconds", sa.Double, nullable=False, server_default="0"),
        sa.Column("started_boot", sa.String(36)),
        sa.Column("started_tick", sa.Double),
        sa.Column("leased_at", sa.Double),
        sa.Column("deleted_at", sa.Double),
        sa.Column("counted_attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("killed_attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("rungs", sa.JSON),
        sa.Column("lease_boot", sa.String(36)),
        sa.Column("lease_ends_tick", sa.Double),
        sa.Column("lease_attempt", sa.Integer),
    ):
        op.add_column("job", column)
    op.create_index("ix_job_owner_leased_at", "job", ["owner", "leased_at"])
    op.add_column("worker", sa.Column("health", sa.JSON))
    op.add_column("worker", sa.Column("proof_asked_at", sa.Double))
    op.create_table(
        "event",
        sa.Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_job_id_seq", "event", ["job_id", "seq"])
    op.create_table(
        "attempt",
        sa.Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(64), nullable=False),
        sa.Column("code", sa.String(32), nullable=False),
        sa.Column("stage", sa.String(16)),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("kills_engine", sa.Boolean, nullable=False),
        sa.Column("rungs", sa.JSON),
        sa.Column("evidence", sa.String(64)),
        sa.Column("at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_attempt_job_id_seq", "attempt", ["job_id", "seq"])
    op.create_table(
        "rung",
        sa.Column("rung_key", sa.String(255), primary_key=True),
        sa.Column("rungs", sa.JSON, nullable=False),
        sa.Column("successes", sa.Integer, nullable=False),
        sa.Column("step_seconds", sa.Double),
        sa.Column("decode_seconds", sa.Double),
        sa.Column("peak_bytes", sa.BigInteger),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "refusal",
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("refused_until", sa.Double, nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("code", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_table(
        "fact",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
