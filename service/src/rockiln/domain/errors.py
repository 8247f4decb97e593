"""Conditions that end a request or a job. The slug of each is its class name in kebab-case.

RockilnError
├── InvalidRequestError        a field, a header or the body is not what the API takes
├── UnknownModelError          no model of that id
├── UnknownJobError            no job of that id
├── UnknownArtefactError       the job has no such picture (yet)
├── IdempotencyConflictError   the key was used with another body
├── JobNotCancellableError     the job has already ended
├── JobNotWaitingError         the job runs, or has ended
├── QueueFullError             too many jobs wait
├── StorageLowError            the disk floor is reached
├── TooLargeForDeviceError     no rung fits the request into any device of this host
├── QuarantinedRequestError    requests like this one killed engines; refused for a while
├── BrokenModelError           the model's files are not what they should be
├── GatedModelError            its licence is not accepted, or the fetcher has no token
├── UnsupportedModelError      known, and this version cannot run it
├── ModelInstalledError        it is here already
├── ModelElsewhereError        its files are not in this service's own folder
├── ModelInUseError            jobs that are not done use it
├── ModelBusyError             something else is being done with it
├── NothingToCancelError       nothing is being done with it
├── NoSpaceForModelError       the disk does not hold it
├── IllegalTransitionError     a bug: the life of a job has no such step
└── LeaseLostError             another attempt owns the job; what this one did is void
"""

from __future__ import annotations

import re
from typing import Any


class RockilnError(Exception):
    """A named condition; ``members`` become extension members of its problem document."""

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members

    @classmethod
    def slug(cls) -> str:
        words = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__.removesuffix("Error"))
        return words.lower()


class InvalidRequestError(RockilnError):
    """Members: ``errors``, a list of ``{field, message, limit?, hint?}``."""


class UnknownModelError(RockilnError):
    """Members: ``known``, the ids that exist."""


class UnknownJobError(RockilnError):
    """No job of that id is kept here."""


class UnknownArtefactError(RockilnError):
    """The job exists, the picture does not, or not yet. Members: ``state``."""


class IdempotencyConflictError(RockilnError):
    """Same ``Idempotency-Key``, other body. Members: ``job_id``."""


class JobNotCancellableError(RockilnError):
    """Members: ``state``, the final state of the job."""


class JobNotWaitingError(RockilnError):
    """Members: ``state``."""


class QueueFullError(RockilnError):
    """Members: ``retry_after_seconds``."""


class TooLargeForDeviceError(RockilnError):
    """Members: ``largest_size``, ``{width, height}`` in px or None where nothing fits."""


class QuarantinedRequestError(RockilnError):
    """Members: ``retry_after_seconds``, ``job_id`` and ``reason`` of the job that was the last."""


class StorageLowError(RockilnError):
    """Members: ``free_bytes`` and ``floor_bytes``."""


class BrokenModelError(RockilnError):
    """A model folder that cannot be used; the detail says which file and why."""


class GatedModelError(RockilnError):
    """Members: ``licence``, ``licence_page``, ``command`` to type once it is accepted."""


class UnsupportedModelError(RockilnError):
    """A known model whose family this version does not have."""


class ModelInstalledError(RockilnError):
    """A download of what is here."""


class ModelElsewhereError(RockilnError):
    """A model that ships with the service, or lies in a folder that is not to be changed."""


class ModelInUseError(RockilnError):
    """Members: ``jobs``, how many."""


class ModelBusyError(RockilnError):
    """Members: ``task_kind``, what is being done with the model."""


class NothingToCancelError(RockilnError):
    """No download of that model is open."""


class NoSpaceForModelError(RockilnError):
    """Members: ``needed_bytes`` and ``free_bytes``."""


class IllegalTransitionError(RockilnError):
    """Raised by the store before anything is written."""


class LeaseLostError(RockilnError):
    """Raised by the store when a write comes from an attempt that no longer owns the job."""
