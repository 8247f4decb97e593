"""The CPU as a compute device."""

from __future__ import annotations

import platform
import resource
from dataclasses import dataclass
from pathlib import Path

import torch

from rockiln.domain.model import DeviceFacts
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
        fields = _meminfo_bytes()
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
        return MemoryReading(fields["MemTotal"], fields["MemAvailable"], peak_bytes)

    def versions(self) -> dict[str, str]:
        return {}

    def synchronise(self) -> None:
        """CPU work is done when its call returns."""

    def release_cache(self) -> None:
        """The CPU allocator keeps no cache of its own."""


def open_cpu(threads: int) -> CpuDevice:
    """The CPU, with ``threads`` as the count torch was given."""
    return CpuDevice(
        DeviceFacts(
            kind="cpu",
            name=_processor_name(),
            total_bytes=_meminfo_bytes()["MemTotal"],
            threads=threads,
        )
    )


def _meminfo_bytes() -> dict[str, int]:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    pairs = (line.split(":") for line in lines)
    return {name: int(value.split()[0]) * _KIB for name, value in pairs}


def _processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
