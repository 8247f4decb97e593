"""OpenAI's image answers: at once, or as a stream with previews."""

from __future__ import annotations

import base64
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from rockiln.api.documents import job_href, picture_href
from rockiln.api.error_forms import openai_error
from rockiln.api.job_feed import read_preview
from rockiln.api.problems import kind_of_failure
from rockiln.domain.job import FINAL_STATES, JobState
from rockiln.store.records import Event, Job
from rockiln.store.store import Store

_END = b"data: [DONE]\n\n"
# Nothing here counts tokens; the SDKs' types have the numbers all the same.
_USAGE: dict[str, Any] = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ImageData(_Answer):
    """One picture: its bytes, or where they are."""

    b64_json: str | None = None
    url: str | None = None


class ImagesResponse(_Answer):
    """The pictures of one call."""

    created: int
    data: list[ImageData]
    output_format: str
    size: str
    quality: str
    background: str = "opaque"
    usage: dict[str, Any] = _USAGE


def images_response(
    job: Job, files: list[bytes], *, quality: str, url_base: str | None
) -> ImagesResponse:
    """The answer for a job that is done.

    Args:
        url_base: where this service is for the client, to give addresses; None to give bytes.
    """
    data = [
        ImageData(b64_json=base64.b64encode(content).decode("ascii"))
        if url_base is None
        else ImageData(url=url_base.rstrip("/") + picture_href(job.id, index))
        for index, content in enumerate(files)
    ]
    return ImagesResponse(
        created=int(job.accepted_at),
        data=data,
        output_format=job.parameters.format,
        size=_size(job),
        quality=quality,
    )


class ImagesFeed:
    """A job's log as OpenAI streams pictures: previews, each finished picture, the end.

    Args:
        partial_images: previews of each picture, spread over its steps.
    """

    def __init__(
        self,
        job: Job,
        store: Store,
        *,
        subject: Literal["image_generation", "image_edit"],
        partial_images: int,
        quality: str,
    ) -> None:
        self.job_id = job.id
        self._job = job
        self._store = store
        self._subject = subject
        self._partial_images = partial_images
        self._quality = quality
        self._shown: dict[int, int] = {}

    def told(self, event: Event) -> bytes:
        if event.kind in FINAL_STATES:
            return self._end(event)
        if event.kind == JobState.PUBLISHED:
            return self._completed(event.payload["index"])
        return self._partial(event)

    def is_last(self, event: Event) -> bool:
        return event.kind in FINAL_STATES

    def _partial(self, event: Event) -> bytes:
        if not self._partial_images:
            return b""
        preview = read_preview(self._store.artefacts, event)
        if preview is None:
            return b""
        index = event.payload["index"]
        shown = self._shown.get(index, 0)
        due = (shown + 1) / (self._partial_images + 1) * self._job.parameters.total_steps
        if shown >= self._partial_images or event.payload["step"] < due:
            return b""
        self._shown[index] = shown + 1
        return self._picture(
            "partial_image", preview, event.at, partial_image_index=shown, output_format="jpeg"
        )

    def _completed(self, index: int) -> bytes:
        job = self._store.jobs.get(self.job_id)
        picture = job.pictures[index]
        if picture.digest is None:
            return b""
        path = self._store.artefacts.picture_path(picture.digest, job.parameters.format)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return b""  # deleted since: nothing is left to show
        return self._picture(
            "completed",
            content,
            job.accepted_at,
            usage=_USAGE,
            output_format=job.parameters.format,
        )

    def _picture(self, name: str, content: bytes, at: float, **more: Any) -> bytes:
        return _event(
            f"{self._subject}.{name}",
            {
                "type": f"{self._subject}.{name}",
                "b64_json": base64.b64encode(content).decode("ascii"),
                "background": "opaque",
                "created_at": int(at),
                "quality": self._quality,
                "size": _size(self._job),
                **more,
            },
        )

    def _end(self, event: Event) -> bytes:
        if event.kind == JobState.DONE:
            return _END
        job = self._store.jobs.get(self.job_id)
        detail = job.failure_detail or f"the job was {event.kind}"
        kind = kind_of_failure(job.state, job.failure_code)
        members = {"job_id": job.id, "job": job_href(job.id)}
        return _event("error", openai_error(kind, detail, members).model_dump())


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _size(job: Job) -> str:
    width, height = job.parameters.largest_size
    return f"{width}x{height}"
