"""A job's log as server-sent events: what a stream of ``/jobs/{id}/events`` says."""

from __future__ import annotations

from pathlib import Path

from rockiln.api.documents import streamed_event
from rockiln.api.progress import ProgressMeter
from rockiln.domain.job import FINAL_STATES
from rockiln.store.artefacts import ArtefactStore
from rockiln.store.records import Event, Job

PREVIEW = "preview"


class JobFeed:
    """Every line of the log, with its number as the id."""

    def __init__(self, job: Job, artefacts: ArtefactStore) -> None:
        self.job_id = job.id
        self._artefacts = artefacts
        self._meter = ProgressMeter(len(job.pictures))

    def told(self, event: Event) -> bytes:
        document = streamed_event(
            event,
            eta_seconds=self._meter.eta_seconds(event),
            preview=read_preview(self._artefacts, event),
        )
        data = document.model_dump_json(exclude_none=True)
        return f"id: {event.seq}\nevent: {document.kind}\ndata: {data}\n\n".encode()

    def is_last(self, event: Event) -> bool:
        return event.kind in FINAL_STATES


def read_preview(artefacts: ArtefactStore, event: Event) -> bytes | None:
    """The picture that a preview event tells of, or a newer one; None once it is gone."""
    if event.kind != PREVIEW:
        return None
    path: Path = artefacts.preview_path(event.job_id, event.payload["index"])
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
