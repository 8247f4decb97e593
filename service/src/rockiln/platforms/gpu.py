"""What rocm and cuda share: torch calls both devices "cuda"."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rockiln.domain.model import DeviceFacts
from rockiln.platforms.interface import DeviceUnavailableError, MemoryReading


@dataclass(frozen=True)
class GpuDevice:
    """The first GPU that torch sees."""

    facts: DeviceFacts
    capability: str
    library_versions: tuple[tuple[str, str], ...]

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cuda", 0)

    def memory(self) -> MemoryReading:
        free_bytes, total_bytes = torch.cuda.mem_get_info(self.torch_device)
        peak_bytes = torch.cuda.max_memory_allocated(self.torch_device)
        return MemoryReading(total_bytes, free_bytes, peak_bytes)

    def versions(self) -> dict[str, str]:
        return dict(self.library_versions)

    def synchronise(self) -> None:
        torch.cuda.synchronize(self.torch_device)

    def release_cache(self) -> None:
        torch.cuda.empty_cache()


def first_gpu_facts(threads: int) -> DeviceFacts:
    """Facts of GPU 0.

    Raises:
        DeviceUnavailableError: the driver refuses it.
    """
    try:
        properties = torch.cuda.get_device_properties(0)
    except RuntimeError as error:
        raise DeviceUnavailableError(f"the GPU does not answer: {error}") from error
    return DeviceFacts(
        kind="gpu",
        name=properties.name,
        total_bytes=properties.total_memory,
        threads=threads,
    )
