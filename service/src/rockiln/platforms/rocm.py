"""AMD GPUs. torch built for ROCm calls its device "cuda"; ``torch.version.hip`` tells."""

from __future__ import annotations

import torch

from rockiln.platforms.gpu import GpuDevice, first_gpu_facts
from rockiln.platforms.interface import DeviceUnavailableError
from rockiln.platforms.loaded_libraries import duplicate_libraries

# Two copies of one of these in a process free the same statics twice.
SINGLE_LIBRARIES = ("libamdhip64", "libhsa-runtime64", "libMIOpen")


def gpu_present() -> bool:
    return torch.version.hip is not None and torch.cuda.is_available()


def open_gpu(threads: int) -> GpuDevice:
    """Takes GPU 0 of a ROCm build.

    Raises:
        DeviceUnavailableError: two copies of a HIP library are in this process, or no answer.
    """
    facts = first_gpu_facts(threads, "rocm")
    duplicates = duplicate_libraries(SINGLE_LIBRARIES)
    if duplicates:
        said = "; ".join(f"{name}: {', '.join(paths)}" for name, paths in duplicates.items())
        raise DeviceUnavailableError(
            f"more than one copy of a ROCm library is loaded ({said}); the copy inside torch and "
            "one of the system must not meet: unset LD_LIBRARY_PATH"
        )
    return GpuDevice(facts=facts, library_versions=(("hip", str(torch.version.hip)),))
