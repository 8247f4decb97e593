"""From a valid request to an accepted job."""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rockiln.api.access import max_jobs_of_owner, owner_of_request
from rockiln.api.input_pictures import CleanPicture, clean_picture
from rockiln.api.services import Services
from rockiln.api.validation import validate_generation
from rockiln.domain.errors import (
    BrokenModelError,
    InvalidRequestError,
    QuarantinedRequestError,
    StorageLowError,
    TooLargeForDeviceError,
    UnknownModelError,
)
from rockiln.domain.fingerprint import fingerprint
from rockiln.domain.model import ControlNetFacts, ModelProfile
from rockiln.domain.plan import Admission, admit
from rockiln.domain.request import (
    SEED_MAX,
    GenerationParameters,
    GenerationRequest,
    PictureFormat,
    says_nothing,
)
from rockiln.domain.resolution import InputPicture, resolve
from rockiln.registry.controlnets import (
    beside,
    controlnet_paths,
    find_controlnets,
    of_model,
    read_controlnet,
)
from rockiln.registry.embeddings import embedding_files, read_embedding, text_widths
from rockiln.registry.known_models import known_models
from rockiln.registry.loras import layers_of, lora_files, read_lora
from rockiln.store.artefacts import INODES_KEPT
from rockiln.store.records import Job, QueueLimits

# Visible ASCII: what fits into a header and a log line.
KEY_PATTERN = "^[!-~]{1,255}$"
_SHOWN_NAMES = 50


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
        QuarantinedRequestError, TooLargeForDeviceError, IdempotencyConflictError
    """
    store, owner = services.store, owner_of_request()
    digest = _digest(request)
    if idempotency_key is not None:
        _check_key(idempotency_key)
        # Before all else: a job that was accepted is answered whatever has become of the host.
        known = store.jobs.find_repeat(idempotency_key, digest, owner=owner)
        if known is not None:
            return known
    profile = _find_model(services, request.model)
    image = None if request.image is None else clean_picture(request.image, "image")
    mask = None if request.mask is None else clean_picture(request.mask, "mask", "L")
    controls = [
        clean_picture(each.image, f"controlnets.{place}.image")
        for place, each in enumerate(request.controlnets)
    ]
    embeddings = embedding_files(services.settings.model_dirs)
    parameters = resolve(
        request,
        profile,
        seed=secrets.randbelow(SEED_MAX + 1),
        picture_format=picture_format,
        image=None if image is None else _as_input(image),
        mask=None if mask is None else _as_input(mask),
        controls=[_as_input(control) for control in controls],
        embeddings=embeddings,
    )
    _check_loras(services, parameters, profile)
    _check_embeddings(embeddings, parameters, profile)
    planned = _with_controlnets(services, parameters, profile)
    _check_disk(services)
    _check_refusals(services, parameters)
    _check_devices(services, parameters, planned)
    for picture in (image, mask, *controls):
        if picture is not None:  # before the job that names it
            store.artefacts.put_input(picture.data)
    settings = services.settings
    job = store.jobs.submit(
        parameters,
        owner=owner,
        estimated_seconds=services.estimator.seconds(parameters),
        limits=QueueLimits(
            max_jobs=settings.queue_max_jobs,
            max_seconds=settings.queue_max_seconds,
            max_jobs_per_owner=max_jobs_of_owner(),
        ),
        idempotency_key=idempotency_key,
        request_digest=digest,
    )
    store.wake("worker")
    return job


def largest_size(services: Services, parameters: GenerationParameters) -> dict[str, int] | None:
    """The largest size of this shape that a worker of this host can make; None if not known."""
    profile = services.catalogue.models.get(parameters.model)
    if profile is None:
        return None
    try:
        uses = find_controlnets(services.settings.model_dirs, parameters.controlnets)
        profile = beside(profile, uses.values())
    except BrokenModelError:  # it is gone since; whoever asks for it again is told
        return None
    return _largest(parameters, _admissions(services, parameters, profile))


def _largest(
    parameters: GenerationParameters, admissions: list[Admission]
) -> dict[str, int] | None:
    sizes = [
        parameters.largest_size if admission.fits else admission.largest for admission in admissions
    ]
    known = [size for size in sizes if size is not None]
    if not known:
        return None
    width, height = max(known, key=lambda size: size[0] * size[1])
    return {"width": width, "height": height}


def _check_key(idempotency_key: str) -> None:
    if re.fullmatch(KEY_PATTERN, idempotency_key) is None:
        message = "it should be 1 to 255 visible ASCII characters"
        raise InvalidRequestError(
            f"Idempotency-Key: {message}",
            errors=[{"field": "Idempotency-Key", "message": message, "hint": "use a UUID"}],
        )


def _check_loras(
    services: Services, parameters: GenerationParameters, profile: ModelProfile
) -> None:
    """Each is there, sound, and made for this model: read from headers, before it is queued."""
    if not parameters.loras:
        return
    files = lora_files(services.settings.model_dirs)
    layers = layers_of(profile) if all(use.name in files for use in parameters.loras) else {}
    errors: list[dict[str, Any]] = []
    for use in parameters.loras:
        try:
            if use.name not in files:
                raise BrokenModelError(f"there is no LoRA {use.name[:100]!r} on this host")
            if layers:
                read_lora(files[use.name], layers)
        except BrokenModelError as error:
            errors.append({"field": "loras", "message": error.detail, "hint": _use_one_of(files)})
    if errors:
        raise InvalidRequestError(f"loras: {errors[0]['message']}", errors=errors)


def _use_one_of(there: Mapping[str, Path]) -> str | None:
    return "use one of " + ", ".join(sorted(there)[:_SHOWN_NAMES]) if there else None


def _check_embeddings(
    files: dict[str, Path], parameters: GenerationParameters, profile: ModelProfile
) -> None:
    """Likewise of textual inversions."""
    widths = text_widths(profile) if parameters.embeddings else {}
    errors: list[dict[str, Any]] = []
    for name in parameters.embeddings:
        try:
            read_embedding(files[name]).check_base(widths)
        except BrokenModelError as error:
            hint = f"leave {name} out, rename its file, or use a model that it was made for"
            errors.append({"field": "embeddings", "message": error.detail, "hint": hint})
    if errors:
        raise InvalidRequestError(f"embeddings: {errors[0]['message']}", errors=errors)


def _with_controlnets(
    services: Services, parameters: GenerationParameters, profile: ModelProfile
) -> ModelProfile:
    """Likewise of ControlNets. The profile as the memory planner is to see it."""
    paths = controlnet_paths(services.settings.model_dirs) if parameters.controlnets else {}
    facts: list[ControlNetFacts] = []
    errors: list[dict[str, Any]] = []
    for place, use in enumerate(parameters.controlnets):
        try:
            if use.name not in paths:
                raise BrokenModelError(f"there is no ControlNet {use.name[:100]!r} on this host")
            facts.append(of_model(read_controlnet(paths[use.name]), profile).facts)
        except BrokenModelError as error:
            field = f"controlnets.{place}.name"
            errors.append({"field": field, "message": error.detail, "hint": _use_one_of(paths)})
    if errors:
        raise InvalidRequestError(f"controlnets: {errors[0]['message']}", errors=errors)
    return replace(profile, controlnets=tuple(facts))


def _check_disk(services: Services) -> None:
    floor_bytes = services.settings.min_free_disk_bytes
    free_bytes = services.store.artefacts.free_bytes()
    if free_bytes < floor_bytes:
        raise StorageLowError(
            "the data disk has less free space than it must keep",
            free_bytes=free_bytes,
            floor_bytes=floor_bytes,
        )
    free_inodes = services.store.artefacts.free_inodes()
    if free_inodes is not None and free_inodes < INODES_KEPT:
        raise StorageLowError(
            "the data disk has fewer free inodes than it must keep",
            free_inodes=free_inodes,
            floor_inodes=INODES_KEPT,
        )


def _check_refusals(services: Services, parameters: GenerationParameters) -> None:
    now = services.clock()
    refusal = services.store.refusals.active(fingerprint(parameters), now)
    if refusal is not None:
        raise QuarantinedRequestError(
            f"the last request like this one killed its engine on every attempt: {refusal.detail}",
            retry_after_seconds=max(1, math.ceil(refusal.until - now)),
            job_id=refusal.job_id,
            reason=refusal.code,
        )


def _check_devices(
    services: Services, parameters: GenerationParameters, profile: ModelProfile
) -> None:
    """A job that some worker can make is accepted, whatever the workers are doing now."""
    admissions = _admissions(services, parameters, profile)
    if admissions and not any(admission.fits for admission in admissions):
        best = _largest(parameters, admissions)
        words = "no size does" if best is None else f"{best['width']}x{best['height']} does"
        width, height = parameters.largest_size
        pinned = services.catalogue.pinned(services.settings.pinned_ids)
        names = ", ".join(model.id for model in pinned if model.id != profile.id)
        beside = f" beside the pinned {names}" if names else ""
        raise TooLargeForDeviceError(
            f"{width}x{height} px with model {profile.id} fits into no "
            f"device of this host{beside}; {words}",
            largest_size=best,
        )


def _admissions(
    services: Services, parameters: GenerationParameters, profile: ModelProfile
) -> list[Admission]:
    """One for each worker that has said what its device is."""
    return [
        admit(parameters, profile, services.device_for(profile, device))
        for device in services.store.workers.devices()
    ]


def _as_input(picture: CleanPicture) -> InputPicture:
    digest = hashlib.sha256(picture.data).hexdigest()
    return InputPicture(digest, picture.width, picture.height)


def _digest(request: GenerationRequest) -> str:
    """Equal for bodies that mean the same, whatever their spelling."""
    said = {
        name: value for name, value in request.model_dump().items() if not says_nothing(name, value)
    }
    canonical = json.dumps(
        said, sort_keys=True, default=lambda data: hashlib.sha256(data).hexdigest()
    )
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
    catalogue = services.models.current(at_once=True)  # it may have come this moment
    if model_id in catalogue.models:
        return catalogue.models[model_id]
    if model_id in catalogue.broken:
        raise BrokenModelError(f"model {model_id}: {catalogue.broken[model_id]}")
    row = known_models().get(model_id)
    if row is not None and not row.bundled and not row.unsupported:
        raise UnknownModelError(
            f"model {model_id} is known, but not on this host",
            known=sorted(catalogue.models),
            hint=f"rockiln models pull {model_id}",
        )
    known = sorted(catalogue.models)
    raise UnknownModelError(
        f"no model {model_id!r} on this host",
        known=known,
        hint=("use one of " + ", ".join(known)) if known else "put a model into the models folder",
    )
