"""The tables. Times are seconds since the epoch, UTC, unless they say that they are ticks."""

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
_Sequence = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Base of the tables."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {dict[str, Any]: JSON, list[str]: JSON, dict[str, float]: JSON}  # noqa: RUF012


class JobRow(Base):
    """One accepted request. ``seq`` is the order of arrival, ``id`` what clients see.

    A lease ends at ``lease_ends_tick`` of the boot clock, which no change of the date moves;
    ``lease_boot`` says of which boot, ``lease_attempt`` of which attempt: where that is another
    one, version 0001 took the lease and ``lease_expires_at`` counts, as it does for that version.
    ``started_tick`` is that of the first lease in the boot ``started_boot``. Waiting jobs go by
    ``turn``, or by ``seq`` where nobody moved them.
    """

    __tablename__ = "job"
    __table_args__ = (
        Index("ix_job_state_seq", "state", "seq"),
        Index("ix_job_owner_leased_at", "owner", "leased_at"),
    )

    seq: Mapped[int] = mapped_column(_Sequence, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    owner: Mapped[str] = mapped_column(String(64), default="")
    purpose: Mapped[str] = mapped_column(String(16), default="picture")
    state: Mapped[str] = mapped_column(String(16))
    parameters: Mapped[dict[str, Any]]
    estimated_seconds: Mapped[float] = mapped_column(default=0.0)
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    request_digest: Mapped[str | None] = mapped_column(String(64))
    accepted_at: Mapped[float]
    started_at: Mapped[float | None]
    started_boot: Mapped[str | None] = mapped_column(String(36))
    started_tick: Mapped[float | None]
    leased_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    deleted_at: Mapped[float | None]
    not_before: Mapped[float] = mapped_column(default=0.0)
    attempt: Mapped[int] = mapped_column(default=0)
    counted_attempts: Mapped[int] = mapped_column(default=0)
    killed_attempts: Mapped[int] = mapped_column(default=0)
    turn: Mapped[int | None] = mapped_column(BigInteger)
    rungs: Mapped[dict[str, Any] | None]
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_expires_at: Mapped[float | None]
    lease_boot: Mapped[str | None] = mapped_column(String(36))
    lease_ends_tick: Mapped[float | None]
    lease_attempt: Mapped[int | None]
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
    """What a worker last said of itself; ``proof_asked_at`` is an operator's word to it."""

    __tablename__ = "worker"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    detail: Mapped[str] = mapped_column(Text, default="")
    device: Mapped[dict[str, Any] | None]
    versions: Mapped[dict[str, Any] | None]
    health: Mapped[dict[str, Any] | None]
    heartbeat_at: Mapped[float]
    proof_at: Mapped[float | None]
    proof_asked_at: Mapped[float | None]


class EventRow(Base):
    """One line of the log of what happened to jobs. Written with the change it tells of."""

    __tablename__ = "event"
    __table_args__ = (Index("ix_event_job_id_seq", "job_id", "seq"),)

    seq: Mapped[int] = mapped_column(_Sequence, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(String(32))
    kind: Mapped[str] = mapped_column(String(16))
    payload: Mapped[dict[str, Any]]
    at: Mapped[float]


class AttemptRow(Base):
    """One attempt that ended without its pictures."""

    __tablename__ = "attempt"
    __table_args__ = (Index("ix_attempt_job_id_seq", "job_id", "seq"),)

    seq: Mapped[int] = mapped_column(_Sequence, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(String(32))
    attempt: Mapped[int]
    worker: Mapped[str] = mapped_column(String(64))
    code: Mapped[str] = mapped_column(String(32))
    stage: Mapped[str | None] = mapped_column(String(16))
    detail: Mapped[str] = mapped_column(Text)
    kills_engine: Mapped[bool]
    rungs: Mapped[dict[str, Any] | None]
    evidence: Mapped[str | None] = mapped_column(String(64))
    at: Mapped[float]


class RungRow(Base):
    """The rungs that worked last for a key, and what they took."""

    __tablename__ = "rung"

    key: Mapped[str] = mapped_column("rung_key", String(255), primary_key=True)
    rungs: Mapped[dict[str, Any]]
    successes: Mapped[int]
    step_seconds: Mapped[float | None]
    decode_seconds: Mapped[float | None]
    peak_bytes: Mapped[int | None] = mapped_column(BigInteger)
    at: Mapped[float]


class RefusalRow(Base):
    """A kind of request that killed engines and is refused for a while."""

    __tablename__ = "refusal"

    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    until: Mapped[float] = mapped_column("refused_until")
    job_id: Mapped[str] = mapped_column(String(32))
    code: Mapped[str] = mapped_column(String(32))
    detail: Mapped[str] = mapped_column(Text)


class KeyRow(Base):
    """A key to the API: what it hashes to, and what it opens."""

    __tablename__ = "api_key"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]]
    max_jobs: Mapped[int | None]
    created_at: Mapped[float]
    revoked_at: Mapped[float | None]


class SessionRow(Base):
    """A browser that has signed in with a key: what its cookie hashes to."""

    __tablename__ = "session"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(16))
    opened_at: Mapped[float]
    expires_at: Mapped[float]


class FactRow(Base):
    """What the store knows of itself, such as its identity."""

    __tablename__ = "fact"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[str] = mapped_column(Text)
