"""Takes the device that the settings ask for."""

from __future__ import annotations

from rockiln.platforms import cpu, cuda, rocm
from rockiln.platforms.backend import Backend, ComputeDevice
from rockiln.platforms.interface import Device, DeviceUnavailableError, Platform

_GPU_PLATFORMS: dict[Backend, Platform] = {"rocm": rocm, "cuda": cuda}


def select(backend: Backend, compute_device: ComputeDevice, *, threads: int) -> Device:
    """The device to compute on. ``auto`` takes the backend's GPU if there is one, else the CPU.

    Args:
        threads: CPU threads torch was given.

    Raises:
        DeviceUnavailableError: a GPU is demanded and none is there, or the GPU is not fit.
    """
    platform = _GPU_PLATFORMS.get(backend)
    if platform is not None and compute_device != "cpu" and platform.gpu_present():
        return platform.open_gpu(threads)
    if compute_device == "gpu":
        raise DeviceUnavailableError(
            "compute_device is gpu, but the backend is cpu: its torch has no GPU support"
            if platform is None
            else f"no {backend} GPU is visible to torch; check that its device files are handed "
            "over (/dev/kfd and /dev/dri for rocm) and that this user may open them"
        )
    return cpu.open_cpu(threads)
