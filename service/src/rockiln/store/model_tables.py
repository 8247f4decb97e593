"""The tables of downloads and licences. Times are seconds since the epoch, UTC."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from rockiln.store.tables import Base

_Sequence = BigInteger().with_variant(Integer, "sqlite")


class ModelTaskRow(Base):
    """What the fetcher was asked to do with a model, and how far it is."""

    __tablename__ = "model_task"
    __table_args__ = (
        Index("ix_model_task_model_id_seq", "model_id", "seq"),
        Index("ix_model_task_state_seq", "state", "seq"),
    )

    seq: Mapped[int] = mapped_column(_Sequence, primary_key=True, autoincrement=True)
    model_id: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), default="asked")
    owner: Mapped[str] = mapped_column(String(64), default="")
    detail: Mapped[str] = mapped_column(Text, default="")
    reason: Mapped[str | None] = mapped_column(String(16))
    bytes_total: Mapped[int | None] = mapped_column(BigInteger)
    bytes_done: Mapped[int] = mapped_column(BigInteger, default=0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    deaths: Mapped[int] = mapped_column(default=0)
    asked_at: Mapped[float]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]


class ModelLockRow(Base):
    """The commit of a repository that was taken first, and the SHA-256 of each file of it."""

    __tablename__ = "model_lock"

    repository: Mapped[str] = mapped_column(String(255), primary_key=True)
    commit_id: Mapped[str] = mapped_column(String(40))
    files: Mapped[dict[str, Any]]
    at: Mapped[float]


class LicenceAcceptanceRow(Base):
    """Who accepted which licence text, and when."""

    __tablename__ = "licence_acceptance"
    __table_args__ = (Index("ix_licence_acceptance_model_id_seq", "model_id", "seq"),)

    seq: Mapped[int] = mapped_column(_Sequence, primary_key=True, autoincrement=True)
    model_id: Mapped[str] = mapped_column(String(64))
    licence: Mapped[str] = mapped_column(Text)
    page: Mapped[str] = mapped_column(Text)
    commit_id: Mapped[str | None] = mapped_column(String(40))
    owner: Mapped[str] = mapped_column(String(64))
    at: Mapped[float]
