"""Waiting jobs that were moved. Expands only: version 0005 runs on this schema."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("job", sa.Column("turn", sa.BigInteger))
