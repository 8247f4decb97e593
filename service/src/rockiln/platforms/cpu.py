"""The CPU as a compute device."""

from __future__ import annotations

import functools
import platform
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
        return MemoryReading(total_bytes, free_bytes, _resident_peak_bytes())

    def reserve(self, reserved_bytes: int) -> CpuDevice:  # noqa: ARG002 (video memory; there is none)
        return self

    def begin_stage(self) -> None:
        if _peak_can_be_reset():
            _reset_peak()

    def stage_peak_bytes(self) -> int:
        """Of the whole process: interpreter and libraries included, as the planner counts."""
        return _resident_peak_bytes() if _peak_can_be_reset() else 0

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


def _reset_peak() -> None:
    """Has the kernel count the peak anew from here (``man 5 proc_pid_clear_refs``)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@functools.cache
def _peak_can_be_reset() -> bool:
    """A kernel without CONFIG_PROC_PAGE_MONITOR, or a sandbox, keeps one peak for a whole life."""
    try:
        _reset_peak()
    except OSError:
        return False
    return True


def _resident_peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * _KIB


def _processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
