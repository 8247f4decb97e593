"""A worker's hand that draws pictures which a browser can show."""

from __future__ import annotations

import io

from PIL import Image

from rockiln.domain.job import JobState
from rockiln.store.records import Job, Lease, Picture
from rockiln.store.store import Store


def painted(width: int, height: int) -> bytes:
    """A PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, "png")
    return file.getvalue()


def draw(store: Store, leased: tuple[Lease, Job], *, data: bytes | None = None) -> None:
    """Publishes every picture of a leased job: ``data``, or one of its size."""
    lease, job = leased
    data = painted(job.parameters.width, job.parameters.height) if data is None else data
    digest = store.artefacts.put_picture(data, "png")
    for picture in job.pictures:
        store.jobs.record_latents(lease, picture.index, "latents")
        store.jobs.record_decode_started(lease, picture.index)
        store.jobs.publish(
            lease,
            picture.index,
            Picture(
                index=picture.index, state=JobState.PUBLISHED, step=4, latents=None, digest=digest,
                size_bytes=len(data), details={}, warnings=(), seconds={"decode": 0.1},
            ),
        )  # fmt: skip
    store.wake("api")
