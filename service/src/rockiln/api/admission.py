"""From a valid request to an accepted job."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from rockiln.api.services import Services
from rockiln.api.validation import validate_generation
from rockiln.domain.errors import (
    BrokenModelError,
    InvalidRequestError,
    StorageLowError,
    UnknownModelError,
)
from rockiln.domain.model import ModelProfile
from rockiln.domain.request import SEED_MAX, GenerationRequest, PictureFormat
from rockiln.store.records import Job, QueueLimits

# Visible ASCII: what fits into a header and a log line.
KEY_PATTERN = "^[!-~]{1,255}$"


def read_request(services: Services, content: Mapping[str, Any]) -> GenerationRequest:
    """Validates a body. Raises InvalidRequestError."""

    def find(model_id: str | None) -> ModelProfile | None:
        catalogue = services.catalogue
        if model_id is None:
            return catalogue.default(services.settings.default_model)
        return catalogue.models.get(model_id)

    return validate_generation(content, find)


def accept_job(
    services: Services,
    request: GenerationRequest,
    *,
    picture_format: PictureFormat,
    idempotency_key: str | None,
) -> Job:
    """Puts a job into the store and wakes the worker. On return the job is on disk.

    Raises:
        InvalidRequestError, UnknownModelError, BrokenModelError, StorageLowError, QueueFullError,
        IdempotencyConflictError
    """
    settings, store = services.settings, services.store
    if idempotency_key is not None and re.fullmatch(KEY_PATTERN, idempotency_key) is None:
        message = "it should be 1 to 255 visible ASCII characters"
        raise InvalidRequestError(
            f"Idempotency-Key: {message}",
            errors=[{"field": "Idempotency-Key", "message": message, "hint": "use a UUID"}],
        )
    profile = _find_model(services, request.model)
    parameters = profile.resolve(
        request, seed=secrets.randbelow(SEED_MAX + 1), picture_format=picture_format
    )
    free_bytes = store.artefacts.free_bytes()
    if free_bytes < settings.min_free_disk_bytes:
        raise StorageLowError(
            "the data disk has less free space than it must keep",
            free_bytes=free_bytes,
            floor_bytes=settings.min_free_disk_bytes,
        )
    job = store.jobs.submit(
        parameters,
        limits=QueueLimits(max_jobs=settings.queue_max_jobs),
        idempotency_key=idempotency_key,
        request_digest=_digest(request),
    )
    store.wake("worker")
    return job


def _digest(request: GenerationRequest) -> str:
    """Equal for bodies that mean the same, whatever their spelling."""
    canonical = json.dumps(request.model_dump(), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _find_model(services: Services, model_id: str | None) -> ModelProfile:
    catalogue = services.catalogue
    if model_id is None:
        profile = catalogue.default(services.settings.default_model)
        if profile is not None:
            return profile
        model_id = services.settings.default_model
    elif model_id in catalogue.models:
        return catalogue.models[model_id]
    if model_id in catalogue.broken:
        raise BrokenModelError(f"model {model_id}: {catalogue.broken[model_id]}")
    known = sorted(catalogue.models)
    raise UnknownModelError(
        f"no model {model_id!r} on this host",
        known=known,
        hint=("use one of " + ", ".join(known)) if known else "put a model into the models folder",
    )
