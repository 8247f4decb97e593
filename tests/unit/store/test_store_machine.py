"""Random lives of jobs: whatever happens in whatever order, the promises hold."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rockiln.domain.errors import IllegalTransitionError, JobNotCancellableError, LeaseLostError
from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.job import JobState
from rockiln.settings import Settings
from rockiln.store.jobs import JobStore
from rockiln.store.records import Lease, Picture, QueueLimits
from rockiln.store.store import Store
from support.parameters import parameters
from unit.store.conftest import Clock

pytestmark = pytest.mark.slow

MAX_ATTEMPTS = 3
FAULTS = st.sampled_from([Fault(code, "x") for code in FaultCode])


class JobMachine(RuleBasedStateMachine):
    """Clients, workers, deaths and time, against one store."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name)
        self.store = Store(Settings(public_dir=root, data_dir=root))
        self.store.prepare()
        self.clock = Clock()
        self.jobs = JobStore(self.store.database, clock=self.clock, tick=self.clock.tick)
        self.accepted: list[str] = []
        self.leases: list[Lease] = []
        self.published: dict[tuple[str, int], str] = {}
        self.denoised: set[tuple[str, int]] = set()

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule(num_images=st.integers(1, 2))
    def submit(self, num_images: int) -> None:
        job = self.jobs.submit(parameters(num_images=num_images), limits=QueueLimits(max_jobs=100))
        self.accepted.append(job.id)

    @rule(worker=st.sampled_from(["a", "b"]))
    def lease(self, worker: str) -> None:
        leased = self.jobs.lease_next(worker=worker, seconds=15)
        if leased is not None:
            self.leases.append(leased[0])

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), index=st.integers(0, 1))
    def work(self, data: st.DataObject, index: int) -> None:
        """Any worker, alive or long replaced, reports any progress."""
        held = data.draw(st.sampled_from(self.leases))
        job = self.jobs.get(held.job_id)
        if index >= len(job.pictures):
            return
        digest = f"{held.attempt:064d}"
        done = Picture(index, JobState.PUBLISHED, 4, None, digest, 1, {}, (), {})
        what = data.draw(st.sampled_from(["step", "latents", "decode", "publish"]))
        try:
            match what:
                case "step":
                    self.jobs.record_step(held, index, 1)
                    assert (held.job_id, index) not in self.denoised
                case "latents":
                    self.jobs.record_latents(held, index, "x/0.safetensors")
                    self.denoised.add((held.job_id, index))
                case "decode":
                    self.jobs.record_decode_started(held, index)
                case "publish":
                    self.jobs.publish(held, index, done)
                    assert (held.job_id, index) not in self.published
                    self.published[held.job_id, index] = digest
        except (LeaseLostError, IllegalTransitionError):
            return

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), fault=FAULTS, give_back=st.booleans())
    def end(self, data: st.DataObject, fault: Fault, give_back: bool) -> None:
        held = data.draw(st.sampled_from(self.leases))
        try:
            if give_back:
                self.jobs.give_back(held)
            else:
                self.jobs.end_attempt(held, fault, max_attempts=MAX_ATTEMPTS)
        except LeaseLostError:
            return

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        try:
            self.jobs.cancel(data.draw(st.sampled_from(self.accepted)))
        except JobNotCancellableError:
            return

    @rule(seconds=st.sampled_from([0.0, 1.0, 16.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        fault = Fault(FaultCode.LEASE_EXPIRED, "x")
        self.jobs.end_stale_attempts(fault, max_attempts=MAX_ATTEMPTS)

    @invariant()
    def promises(self) -> None:
        jobs = {job.id: job for job in self.jobs.page(limit=1000)}
        assert set(jobs) == set(self.accepted)  # never lost
        for job in jobs.values():
            for picture in job.pictures:
                key = (job.id, picture.index)
                assert picture.digest == self.published.get(key)  # never published twice
            all_there = all(picture.digest for picture in job.pictures)
            assert (job.state is JobState.DONE) == all_there  # never half delivered
            if job.state in {JobState.FAILED, JobState.QUARANTINED}:
                assert job.failure_code  # never without a reason


JobMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestJobs = JobMachine.TestCase
