"""R28: random lives of jobs with processes that die inside any transaction; no promise breaks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from sqlalchemy import event, select

from rockiln.domain.errors import IllegalTransitionError, LeaseLostError
from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.job import JobState
from rockiln.settings import Settings
from rockiln.store import life
from rockiln.store.jobs import JobStore
from rockiln.store.records import Lease, Picture
from rockiln.store.store import Store
from rockiln.store.tables import JobRow
from support.parameters import parameters
from support.store_life import LIMITS
from unit.store.test_store_machine import MAX_ATTEMPTS, JobMachine

STEPS_PER_LIFE = 50
MEMORY = Path("/dev/shm")  # noqa: S108 (folders of random names below it)


class KilledError(Exception):
    """The process is gone; its transaction was not committed."""


class DyingMachine(JobMachine):
    """The machine of the unit tests, and deaths in the middle of what is done."""

    template: Path | None = None

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None
        self._listen()

    def _listen(self) -> None:
        event.listen(self.store.database.engine, "before_cursor_execute", self._statement)

    def _statement(self, *_given: Any) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KilledError

    def _dying(self, statements: int, do: Callable[[], Any]) -> bool:
        """Whether the process died; then another one has taken its place."""
        self.left = statements
        try:
            do()
        except KilledError:
            self.left = None
            self.store.close()
            self.store = Store(self.store._settings)
            self._listen()
            self.jobs = JobStore(self.store.database, clock=self.clock, tick=self.clock.tick)
            fault = Fault(FaultCode.LEASE_EXPIRED, "the worker died")
            self.jobs.end_stale_attempts(fault, max_attempts=MAX_ATTEMPTS, worker="a")
            return True
        finally:
            self.left = None
        return False

    @rule(statements=st.integers(0, 12), key=st.integers(0, 5))
    def die_in_submit(self, statements: int, key: int) -> None:
        heard: list[str] = []

        def submit() -> None:
            job = self.jobs.submit(parameters(), limits=LIMITS, owner="o", idempotency_key=str(key))
            heard.append(job.id)

        self._dying(statements, submit)
        self.accepted += [job_id for job_id in heard if job_id not in self.accepted]

    @rule(statements=st.integers(0, 12))
    def die_in_lease(self, statements: int) -> None:
        def lease() -> None:
            leased = self.jobs.lease_next(worker="a", seconds=15)
            if leased is not None:
                self.leases.append(leased[0])

        self._dying(statements, lease)

    @precondition(lambda self: self.leases)
    @rule(statements=st.integers(0, 14), data=st.data())
    def die_in_work(self, statements: int, data: st.DataObject) -> None:
        """All the rest of a picture in one go, as far as it comes."""
        held: Lease = data.draw(st.sampled_from(self.leases))
        digest = f"{held.attempt:064d}"
        picture = Picture(0, JobState.PUBLISHED, 4, None, digest, 1, {}, (), {})
        key = (held.job_id, 0)

        def work() -> None:
            try:
                job = self.jobs.get(held.job_id)
                if job.pictures[0].latents is None and not job.pictures[0].digest:
                    self.jobs.record_latents(held, 0, "x/0.safetensors")
                    assert key not in self.denoised
                    self.denoised.add(key)
                self.jobs.record_decode_started(held, 0)
                self.jobs.publish(held, 0, picture)
            except (LeaseLostError, IllegalTransitionError):
                return
            assert key not in self.published
            self.published[key] = digest

        self._dying(statements, work)

    @rule()
    def events_tell_what_the_rows_say(self) -> None:
        ends: dict[str, list[str]] = {}
        for line in self.store.events.after(None, 0, 100_000):
            if line.kind in {"done", "failed", "quarantined", "cancelled"}:
                ends.setdefault(line.job_id, []).append(line.kind)
        for job in self.jobs.page(limit=1000):
            assert ends.get(job.id, []) == ([job.state.value] if job.ended else [])


def run(lives: int) -> None:
    run_state_machine_as_test(
        DyingMachine,
        settings=settings(
            max_examples=lives,
            stateful_step_count=STEPS_PER_LIFE,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prepared store to copy, on a file system without a disk: deaths here cut no power."""
    ready = tmp_path / "ready"
    store = Store(Settings(public_dir=ready, data_dir=ready))
    store.prepare()
    store.close()
    place = MEMORY if MEMORY.is_dir() else tmp_path

    def prepare(store: Store) -> None:
        shutil.copytree(ready, store._settings.data_dir, dirs_exist_ok=True)

    monkeypatch.setattr(Store, "prepare", prepare)
    monkeypatch.setattr(tempfile, "tempdir", str(place))


@pytest.mark.usefixtures("in_memory")
def test_random_lives_with_deaths(
    sizes: Callable[[int, int], int], figures: Callable[..., None]
) -> None:
    steps = sizes(5_000, 100_000)
    run(steps // STEPS_PER_LIFE)
    figures(steps=steps, broken_invariants=0)


def _unfenced(session: Any, lease: Lease) -> JobRow:
    row: JobRow = session.scalars(select(JobRow).where(JobRow.id == lease.job_id)).one()
    return row


@pytest.mark.usefixtures("in_memory")
def test_the_machine_finds_a_store_without_fencing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that lost its lease may write: the machine has to see it."""
    monkeypatch.setattr(life, "owned", _unfenced)
    with pytest.raises((AssertionError, ExceptionGroup, IllegalTransitionError)):
        run(100)
