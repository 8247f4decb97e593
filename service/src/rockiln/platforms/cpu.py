"""The CPU as a compute device."""

from __future__ import annotations

import platform
import resource
from dataclasses import dataclass
from pathlib import Path

import torch

from rockiln.domain.model import DeviceFacts
from rockiln.platforms.host_memory import host_memory_bytes, meminfo_bytes
from rockiln.platforms.interface import MemoryReading

_KIB = 1024


@dataclass(frozen=True)
class CpuDevice:
    """The host's CPU."""

    facts: DeviceFacts

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def capability(self) -> str:
        return torch.backends.cpu.get_cpu_capability()

    def memory(self) -> MemoryReading:
        total_bytes = host_memory_bytes()
        free_bytes = min(total_bytes, meminfo_bytes()["MemAvailable"])
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
        return MemoryReading(total_bytes, free_bytes, peak_bytes)

    def reserve(self, reserved_bytes: int) -> CpuDevice:  # noqa: ARG002 (video memory; there is none)
        return self

    def begin_stage(self) -> None:
        """The kernel keeps one peak for the whole life of a process."""

    def stage_peak_bytes(self) -> int:
        return 0

    def versions(self) -> dict[str, str]:
        return {}

    def synchronise(self) -> None:
        """CPU work is done when its call returns."""

    def release_cache(self) -> None:
        """The CPU allocator keeps no cache of its own."""


def open_cpu(threads: int) -> CpuDevice:
    """The CPU, with ``threads`` as the count torch was given."""
    total_bytes = host_memory_bytes()
    return CpuDevice(
        DeviceFacts(
            kind="cpu",
            name=_processor_name(),
            total_bytes=total_bytes,
            threads=threads,
            backend="cpu",
            capability=torch.backends.cpu.get_cpu_capability(),
            host_bytes=total_bytes,
        )
    )


def _processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
