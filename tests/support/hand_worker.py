"""Does to the store by hand what a worker does: for tests of the front alone."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rockiln.domain.fault import Fault
from rockiln.domain.job import JobState
from rockiln.store import life
from rockiln.store.records import Job, Lease, Picture, Worker, WorkerState
from rockiln.store.store import Store
from rockiln.store.wake import POLL_SECONDS

NAME = "cpu0"


class HandWorker:
    """Acts on one store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def report(
        self,
        state: WorkerState = WorkerState.READY,
        *,
        detail: str = "",
        age_seconds: float = 0.0,
        proven: bool = True,
    ) -> None:
        now = time.time() - age_seconds
        device = {"kind": "cpu", "name": "a test", "total_bytes": 8 << 30, "threads": 1}
        self.store.workers.report(
            Worker(NAME, state, detail, device, {"torch": "0"}, now, now if proven else None)
        )

    def lease(self) -> tuple[Lease, Job]:
        leased = self.store.jobs.lease_next(worker=NAME, seconds=600)
        assert leased is not None, "no job waits"
        return leased

    def finish(
        self,
        leased: tuple[Lease, Job],
        *,
        warnings: tuple[str, ...] = (),
        content: bytes | None = None,
    ) -> Job:
        """Publishes every picture of a leased job; its bytes say which it is, or ``content``."""
        lease, job = leased
        for picture in job.pictures:
            name = f"{job.parameters.format} {job.id} {picture.index}"
            data = name.encode() if content is None else content
            digest = self.store.artefacts.put_picture(data, job.parameters.format)
            self.store.jobs.record_latents(lease, picture.index, "latents")
            self.store.jobs.record_decode_started(lease, picture.index)
            job = self.store.jobs.publish(
                lease,
                picture.index,
                Picture(
                    index=picture.index,
                    state=JobState.PUBLISHED,
                    step=job.parameters.num_inference_steps,
                    latents=None,
                    digest=digest,
                    size_bytes=len(data),
                    details={"policies": ["channels_last"]},
                    warnings=warnings,
                    seconds={"denoise": 1.5},
                ),
                peak_bytes={"denoise": 3 << 30},
            )
        self.store.wake("api")
        return job

    def tell_preview(self, leased: tuple[Lease, Job], index: int, step: int) -> None:
        """Logs that there is a preview, as a worker does once it has written the file."""
        with self.store.database.write() as session:
            row = life.owned(session, leased[0])
            life.tell(row, "preview", time.time(), index=index, step=step)

    def fail(self, leased: tuple[Lease, Job], fault: Fault) -> Job:
        job = self.store.jobs.end_attempt(leased[0], fault, max_attempts=1)
        self.store.wake("api")
        return job

    @contextmanager
    def working(self, act: Callable[[tuple[Lease, Job]], object] | None = None) -> Iterator[None]:
        """Takes every job that comes, in a thread, until the block ends."""
        stopping = threading.Event()
        receiver = self.store.wake_receiver("worker")

        def work() -> None:
            poller = select.poll()
            poller.register(receiver.socket, select.POLLIN)
            while not stopping.is_set():
                leased = self.store.jobs.lease_next(worker=NAME, seconds=600)
                if leased is not None:
                    (act or self.finish)(leased)
                elif poller.poll(POLL_SECONDS * 1000):
                    receiver.drain()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            self.store.wake("worker")
            thread.join()
            receiver.close()
