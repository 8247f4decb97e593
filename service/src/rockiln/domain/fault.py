"""Why an attempt ended without a picture. One table says what each class asks for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Stage = Literal["start", "encode_prompt", "encode_image", "denoise", "decode", "encode"]


class FaultCode(StrEnum):
    """Stable codes; clients, metrics and docs use the same words (docs/faults.md)."""

    REQUEST_BUG = "request_bug"
    BROKEN_MODEL = "broken_model"
    BOOT_FAILURE = "boot_failure"
    EXIT_CORRUPTION = "exit_corruption"
    DECODE_CRASH = "decode_crash"
    GPU_OOM = "gpu_oom"
    HOST_OOM = "host_oom"
    MIOPEN_NO_ALGORITHM = "miopen_no_algorithm"
    MIOPEN_FIND_STALL = "miopen_find_stall"
    GPU_PAGE_FAULT = "gpu_page_fault"
    GPU_RESET = "gpu_reset"
    HANG = "hang"
    BAD_OUTPUT = "bad_output"
    KERNEL_MISSING_FOR_ARCH = "kernel_missing_for_arch"
    STORAGE_FULL = "storage_full"
    ENGINE_ERROR = "engine_error"
    ENGINE_DIED = "engine_died"
    ATTEMPT_DEADLINE = "attempt_deadline"
    JOB_DEADLINE = "job_deadline"
    LEASE_EXPIRED = "lease_expired"


_C = FaultCode
# A repeat of these gives the same answer, so it is not tried.
FINAL_FAULTS = frozenset(
    {_C.REQUEST_BUG, _C.BROKEN_MODEL, _C.KERNEL_MISSING_FOR_ARCH, _C.JOB_DEADLINE}
)
# Smaller work would have passed.
MEMORY_FAULTS = frozenset({_C.GPU_OOM, _C.HOST_OOM})
# These cost an engine; a job that brings them about again and again is quarantined.
KILLING_FAULTS = frozenset(
    {_C.ENGINE_DIED, _C.DECODE_CRASH, _C.HOST_OOM, _C.MIOPEN_FIND_STALL, _C.GPU_PAGE_FAULT,
     _C.GPU_RESET, _C.HANG, _C.ATTEMPT_DEADLINE}
)  # fmt: skip
# Another rung of the ladder may get round these.
CLIMBING_FAULTS = frozenset(
    {_C.DECODE_CRASH, _C.GPU_OOM, _C.HOST_OOM, _C.MIOPEN_NO_ALGORITHM, _C.MIOPEN_FIND_STALL,
     _C.GPU_PAGE_FAULT, _C.GPU_RESET, _C.HANG, _C.BAD_OUTPUT, _C.ENGINE_DIED}
)  # fmt: skip
# After these the device has to prove itself in a fresh child before it gets a job.
DOUBTING_FAULTS = frozenset({_C.GPU_PAGE_FAULT, _C.GPU_RESET, _C.HANG, _C.MIOPEN_FIND_STALL})
# The job did nothing to deserve these.
BLAMELESS_FAULTS = frozenset({_C.LEASE_EXPIRED, _C.STORAGE_FULL, _C.EXIT_CORRUPTION})


@dataclass(frozen=True)
class Fault:
    """One ended attempt.

    Attributes:
        detail: written for the person who sent the job.
        stage: where the attempt was; None if nobody knows.
        outside: the engine was killed by something that is neither the job nor we.
    """

    code: FaultCode
    detail: str
    stage: Stage | None = None
    outside: bool = False

    @property
    def retryable(self) -> bool:
        return self.code not in FINAL_FAULTS

    @property
    def kills_engine(self) -> bool:
        return self.code in KILLING_FAULTS and not self.outside

    @property
    def climbs(self) -> bool:
        """Whether the next rung of the ladder is asked for."""
        return self.code in CLIMBING_FAULTS and not self.outside

    @property
    def doubts_device(self) -> bool:
        return self.code in DOUBTING_FAULTS

    @property
    def counts(self) -> bool:
        """Whether the attempt counts against the job's ``max_attempts``."""
        return self.code not in BLAMELESS_FAULTS and not self.outside
