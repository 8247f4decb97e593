"""The version before runs on this schema: its tables and statements as they were."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext

from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.model import DeviceFacts
from rockiln.domain.plan import FULL_RUNGS
from rockiln.settings import Settings
from rockiln.store import migrations
from rockiln.store.records import Worker, WorkerState
from rockiln.store.schema import StoreRefusedError
from rockiln.store.store import Store
from rockiln.store.tables import RungRow
from rockiln.worker.protocol import Ready
from rockiln.worker.rung_choice import choose
from support.paper_model import PAPER
from support.parameters import parameters
from support.store_life import LIMITS, make_job
from unit.store.conftest import Clock

CARD = DeviceFacts("gpu", "a test", 8 << 30, 2, "rocm", "gfx1100", 64 << 30)
# As version 0001 had them: frozen, not derived from today's tables.
OLD = sa.MetaData()
JOB = sa.Table(
    "job",
    OLD,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("id", sa.String(32)),
    sa.Column("state", sa.String(16)),
    sa.Column("parameters", sa.JSON),
    sa.Column("idempotency_key", sa.String(255)),
    sa.Column("request_digest", sa.String(64)),
    sa.Column("accepted_at", sa.Double),
    sa.Column("started_at", sa.Double),
    sa.Column("ended_at", sa.Double),
    sa.Column("not_before", sa.Double),
    sa.Column("attempt", sa.Integer),
    sa.Column("lease_owner", sa.String(64)),
    sa.Column("lease_expires_at", sa.Double),
    sa.Column("cancel_requested", sa.Boolean),
    sa.Column("failure_code", sa.String(32)),
    sa.Column("failure_detail", sa.Text),
)
PICTURE = sa.Table(
    "picture",
    OLD,
    sa.Column("job_seq", sa.BigInteger, primary_key=True),
    sa.Column("picture_index", sa.Integer, primary_key=True),
    sa.Column("state", sa.String(16)),
    sa.Column("step", sa.Integer),
    sa.Column("latents", sa.String(64)),
    sa.Column("digest", sa.String(64)),
    sa.Column("size_bytes", sa.Integer),
    sa.Column("details", sa.JSON),
    sa.Column("warnings", sa.JSON),
    sa.Column("seconds", sa.JSON),
)
WORKER = sa.Table(
    "worker",
    OLD,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("state", sa.String(16)),
    sa.Column("detail", sa.Text),
    sa.Column("device", sa.JSON),
    sa.Column("versions", sa.JSON),
    sa.Column("heartbeat_at", sa.Double),
    sa.Column("proof_at", sa.Double),
)


def old_submit(connection: sa.Connection, job_id: str) -> int:
    """What version 0001 inserts for a request."""
    done = connection.execute(
        JOB.insert().values(
            id=job_id, state="accepted", parameters=parameters().as_dict(), idempotency_key=None,
            request_digest=None, accepted_at=1.0, not_before=0.0, attempt=0,
            cancel_requested=False,
        )
    )  # fmt: skip
    key = done.inserted_primary_key
    assert key is not None
    connection.execute(
        PICTURE.insert().values(job_seq=key[0], picture_index=0, state="accepted", step=0)
    )
    return int(key[0])


def old_lease(connection: sa.Connection, seq: int, until: float) -> None:
    """What version 0001 writes for a lease."""
    connection.execute(
        JOB.update()
        .where(JOB.c.seq == seq)
        .values(
            state="leased", attempt=1, lease_owner="old", lease_expires_at=until, started_at=1.0
        )
    )


def test_the_version_before_writes_and_this_one_reads(store: Store) -> None:
    with store.database.engine.begin() as connection:
        old_submit(connection, "a" * 32)
        connection.execute(
            WORKER.insert().values(name="old", state="ready", detail="", heartbeat_at=1.0)
        )
    job = store.jobs.get("a" * 32)
    assert (job.state, job.owner, job.purpose, job.estimated_seconds) == (
        "accepted", "", "picture", 0.0,
    )  # fmt: skip
    leased = store.jobs.lease_next(worker="new", seconds=15)
    assert leased is not None
    assert leased[1].id == job.id
    assert [worker.name for worker in store.workers.all()] == ["old"]


def test_this_version_writes_and_the_version_before_reads(store: Store) -> None:
    job = make_job(store, seed=1)
    store.jobs.submit(parameters(), limits=LIMITS, owner="anna", estimated_seconds=9)
    assert store.jobs.lease_next(worker="new", seconds=15) is not None
    store.workers.report(Worker("w", WorkerState.READY, "", None, None, 1.0, None, {"x": 1}))
    with store.database.engine.connect() as connection:
        rows = connection.execute(sa.select(JOB).order_by(JOB.c.seq)).all()
        assert [row.state for row in rows] == ["done", "leased"]
        # It goes by the date: a lease of ours must not look as if it had run out.
        assert rows[1].lease_expires_at > rows[1].accepted_at
        pictures = connection.execute(sa.select(PICTURE)).all()
        assert pictures[0].digest == job.pictures[0].digest
        assert connection.execute(sa.select(WORKER)).one().name == "w"


def test_a_lease_of_the_version_before_goes_by_the_date(store: Store, clock: Clock) -> None:
    from rockiln.store.jobs import JobStore  # noqa: PLC0415

    jobs = JobStore(store.database, clock=clock, tick=clock.tick)
    job = jobs.submit(parameters(), limits=LIMITS)
    leased = jobs.lease_next(worker="new", seconds=15)
    assert leased is not None
    jobs.give_back(leased[0])
    with store.database.engine.begin() as connection:
        old_lease(connection, job.seq, until=clock.now + 15)
    died = Fault(FaultCode.LEASE_EXPIRED, "x")
    assert jobs.end_stale_attempts(died, max_attempts=3) == []
    clock.now += 16
    assert [ended.id for ended in jobs.end_stale_attempts(died, max_attempts=3)] == [job.id]


def test_the_schema_is_at_its_newest(store: Store) -> None:
    with store.database.engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == "0006"


@pytest.fixture
def old_store(tmp_path: Path) -> Iterator[Store]:
    """A store that version 0001 made, with a job."""
    store = Store(Settings(public_dir=tmp_path, data_dir=tmp_path / "data"))
    assert store.database.file is not None
    store.database.file.parent.mkdir(parents=True)
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with store.database.engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0001")
        old_submit(connection, "a" * 32)
    yield store
    store.close()


def test_the_file_is_copied_before_its_schema_moves_on(old_store: Store) -> None:
    file = old_store.database.file
    assert file is not None
    older = file.with_name("former-0000.db")
    older.touch()
    old_store.prepare()
    copy = sa.create_engine(f"sqlite:///{file.with_name('former-0001.db')}")
    with copy.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == "0001"
        assert connection.scalar(sa.select(JOB.c.state)) == "accepted"
    copy.dispose()
    assert not older.exists()
    old_store.prepare()  # nothing moves, so the copy stays the one of before
    assert len(list(file.parent.glob("former-*"))) == 1


def test_without_room_for_the_copy_nothing_is_changed(
    old_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StoreRefusedError, match=r"1000 bytes free.*Make room"):
        old_store.prepare()
    with old_store.database.engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == "0001"


def test_a_rung_of_a_version_that_was_rolled_back_from_loses_no_job(store: Store) -> None:
    """The store only goes forward, the service also goes back."""
    newer = {"denoise": "a rung to come", "decode": "full"}
    job, ready = make_job(store, seed=1), Ready(device=CARD, versions={}, proof_seconds=1.0)
    key = choose(job, PAPER, ready, store).key
    figures: dict[str, Any] = {"step_seconds": 1.0, "decode_seconds": 1.0, "peak_bytes": 1}
    store.rungs.record_success(key, FULL_RUNGS, **figures)
    with store.database.engine.begin() as connection:
        connection.execute(sa.update(RungRow).values(rungs=newer))
    assert choose(job, PAPER, ready, store).plan.rungs == FULL_RUNGS
    assert store.rungs.all(9) == []
    assert choose(replace(job, rungs=newer), PAPER, ready, store).plan.rungs != FULL_RUNGS
    store.rungs.record_success(key, FULL_RUNGS, **figures)
    assert [known.rungs for known in store.rungs.all(9)] == [FULL_RUNGS]
