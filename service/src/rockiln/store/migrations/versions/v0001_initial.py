"""Jobs, pictures and workers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("request_digest", sa.String(64)),
        sa.Column("accepted_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("not_before", sa.Double, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("lease_owner", sa.String(64)),
        sa.Column("lease_expires_at", sa.Double),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("failure_code", sa.String(32)),
        sa.Column("failure_detail", sa.Text),
        sa.UniqueConstraint("id", name="uq_job_id"),
        sa.UniqueConstraint("idempotency_key", name="uq_job_idempotency_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_state_seq", "job", ["state", "seq"])
    op.create_table(
        "picture",
        sa.Column(
            "job_seq",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            sa.ForeignKey("job.seq", ondelete="CASCADE", name="fk_picture_job_seq_job"),
            primary_key=True,
        ),
        sa.Column("picture_index", sa.Integer, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("latents", sa.String(64)),
        sa.Column("digest", sa.String(64)),
        sa.Column("size_bytes", sa.Integer),
        sa.Column("details", sa.JSON),
        sa.Column("warnings", sa.JSON),
        sa.Column("seconds", sa.JSON),
    )
    op.create_table(
        "worker",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("device", sa.JSON),
        sa.Column("versions", sa.JSON),
        sa.Column("heartbeat_at", sa.Double, nullable=False),
        sa.Column("proof_at", sa.Double),
    )
