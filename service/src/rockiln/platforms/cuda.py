"""NVIDIA GPUs: where the engine's GPU path can be exercised without an AMD card."""

from __future__ import annotations

import torch

from rockiln.platforms.gpu import GpuDevice, first_gpu_facts


def gpu_present() -> bool:
    return torch.version.cuda is not None and torch.cuda.is_available()


def open_gpu(threads: int) -> GpuDevice:
    """Takes GPU 0. Raises DeviceUnavailableError."""
    facts = first_gpu_facts(threads, "cuda")
    return GpuDevice(facts=facts, library_versions=(("cuda", str(torch.version.cuda)),))
