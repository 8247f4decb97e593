"""The tables. Times are seconds since the epoch, UTC."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

# Named constraints, so that a later migration can address them on every database.
_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Base of the three tables."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {dict[str, Any]: JSON, list[str]: JSON, dict[str, float]: JSON}  # noqa: RUF012


class JobRow(Base):
    """One accepted request. ``seq`` is the order of arrival, ``id`` what clients see."""

    __tablename__ = "job"
    __table_args__ = (Index("ix_job_state_seq", "state", "seq"),)

    seq: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    id: Mapped[str] = mapped_column(String(32), unique=True)
    state: Mapped[str] = mapped_column(String(16))
    parameters: Mapped[dict[str, Any]]
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    request_digest: Mapped[str | None] = mapped_column(String(64))
    accepted_at: Mapped[float]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    not_before: Mapped[float] = mapped_column(default=0.0)
    attempt: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_expires_at: Mapped[float | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    failure_code: Mapped[str | None] = mapped_column(String(32))
    failure_detail: Mapped[str | None] = mapped_column(Text)

    pictures: Mapped[list[PictureRow]] = relationship(
        order_by="PictureRow.index", cascade="all, delete-orphan", lazy="selectin"
    )


class PictureRow(Base):
    """One picture of a job and how far it has come."""

    __tablename__ = "picture"

    job_seq: Mapped[int] = mapped_column(
        ForeignKey("job.seq", ondelete="CASCADE"), primary_key=True
    )
    index: Mapped[int] = mapped_column("picture_index", primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    step: Mapped[int] = mapped_column(default=0)
    latents: Mapped[str | None] = mapped_column(String(64))
    digest: Mapped[str | None] = mapped_column(String(64))
    size_bytes: Mapped[int | None]
    details: Mapped[dict[str, Any] | None]
    warnings: Mapped[list[str] | None]
    seconds: Mapped[dict[str, float] | None]


class WorkerRow(Base):
    """What a worker last said of itself."""

    __tablename__ = "worker"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    detail: Mapped[str] = mapped_column(Text, default="")
    device: Mapped[dict[str, Any] | None]
    versions: Mapped[dict[str, Any] | None]
    heartbeat_at: Mapped[float]
    proof_at: Mapped[float | None]
