"""The same again: a new job with the parameters and the pictures of one that was accepted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rockiln.api.admission import accept_job, read_request
from rockiln.api.services import services
from rockiln.domain.errors import UnknownArtefactError
from rockiln.store.records import Job

_INPUT_FIELDS = ("image", "mask")


def repeat_job(job: Job, *, seed: int | None = None, idempotency_key: str | None = None) -> Job:
    """Accepts it anew, as any request.

    Args:
        seed: instead of the job's own.

    Raises:
        UnknownArtefactError: a picture that it started from is not here any more.
        Others: as ``accept_job`` says.
    """
    content = {**job.parameters.as_dict(), **input_pictures(job)}
    if seed is not None:
        content["seed"] = seed
    return accept_job(
        services(),
        read_request(services(), content),
        picture_format=job.parameters.format,
        idempotency_key=idempotency_key,
    )


def input_pictures(job: Job) -> dict[str, Any]:
    """The pictures that a job is made from, by their field. Raises UnknownArtefactError."""
    found: dict[str, Any] = {
        name: _input(job, name, digest)
        for name in _INPUT_FIELDS
        if (digest := getattr(job.parameters, name)) is not None
    }
    if job.parameters.controlnets:
        found["controlnets"] = [
            {**asdict(use), "image": _input(job, f"picture of {use.name}", use.image)}
            for use in job.parameters.controlnets
        ]
    return found


def _input(job: Job, name: str, digest: str) -> bytes:
    try:
        return services().store.artefacts.input_path(digest).read_bytes()
    except FileNotFoundError as error:
        raise UnknownArtefactError(
            f"the {name} that the job was made from was removed from this host",
            job_id=job.id,
            hint="Send the request with the picture, or choose it again on the form.",
        ) from error
