"""What the engine may ask of a device, whatever made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from rockiln.domain.errors import RockilnError
from rockiln.domain.model import DeviceFacts


class DeviceUnavailableError(RockilnError):
    """The wanted device is not there or does not answer; the detail says what to check."""


@dataclass(frozen=True)
class MemoryReading:
    """Memory of a device, in bytes.

    ``peak_bytes`` is this process's own, since ``begin_stage``.
    """

    total_bytes: int
    free_bytes: int
    peak_bytes: int


class Device(Protocol):
    """One compute device, taken for the life of the process."""

    @property
    def torch_device(self) -> torch.device: ...

    @property
    def facts(self) -> DeviceFacts: ...

    @property
    def capability(self) -> str:
        """What decides a result's last bits besides versions: instruction set, or gfx id."""

    def memory(self) -> MemoryReading: ...

    def reserve(self, reserved_bytes: int) -> Device:
        """The device with so much of its memory left to others, and this process held to it.

        Raises:
            DeviceUnavailableError: what is left is too little to work with.
        """

    def begin_stage(self) -> None:
        """Counts the peak of memory anew from here."""

    def stage_peak_bytes(self) -> int:
        """Most device memory in use since ``begin_stage``; 0 where nobody counts it."""

    def versions(self) -> dict[str, str]:
        """Versions of the libraries under torch that this device's results depend on."""

    def synchronise(self) -> None:
        """Returns once all work given to the device is done; raises what went wrong in it."""

    def release_cache(self) -> None:
        """Gives unused cached memory back to the device."""


class Platform(Protocol):
    """One module per backend has these functions."""

    def gpu_present(self) -> bool:
        """Whether torch sees a GPU of this backend."""

    def open_gpu(self, threads: int) -> Device:
        """Takes the first GPU. Raises DeviceUnavailableError."""
