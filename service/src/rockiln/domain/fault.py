"""Why an attempt ended without a picture."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FaultCode(StrEnum):
    """Stable codes; clients, metrics and docs use the same words."""

    REQUEST_BUG = "request_bug"
    BROKEN_MODEL = "broken_model"
    BAD_OUTPUT = "bad_output"
    OUT_OF_MEMORY = "out_of_memory"
    ENGINE_ERROR = "engine_error"
    ENGINE_DIED = "engine_died"
    ATTEMPT_DEADLINE = "attempt_deadline"
    LEASE_EXPIRED = "lease_expired"
    BOOT_FAILURE = "boot_failure"


# A repeat of these gives the same answer, so it is not tried.
DETERMINISTIC_FAULTS = frozenset({FaultCode.REQUEST_BUG, FaultCode.BROKEN_MODEL})
# These cost an engine; a job that brings them about again and again is quarantined.
KILLING_FAULTS = frozenset({FaultCode.ENGINE_DIED, FaultCode.ATTEMPT_DEADLINE})


@dataclass(frozen=True)
class Fault:
    """One ended attempt. ``detail`` is written for the person who sent the job."""

    code: FaultCode
    detail: str

    @property
    def retryable(self) -> bool:
        return self.code not in DETERMINISTIC_FAULTS

    @property
    def kills_engine(self) -> bool:
        return self.code in KILLING_FAULTS
