"""What rocm and cuda share: torch calls both devices "cuda"."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch.backends import cuda as backends

from rockiln.domain.memory import CONTEXT_BYTES, MIB
from rockiln.domain.model import DeviceFacts
from rockiln.platforms.host_memory import host_memory_bytes
from rockiln.platforms.interface import DeviceUnavailableError, MemoryReading

# Below this no model of any family works.
_LEAST_USABLE_BYTES = CONTEXT_BYTES + 256 * MIB
# Widths of heads in the field's models, widest first.
_HEAD_WIDTHS = (512, 256, 160, 128, 80, 64, 40)
_PROBE_TOKENS = 128


@dataclass(frozen=True)
class GpuDevice:
    """The first GPU that torch sees."""

    facts: DeviceFacts
    library_versions: tuple[tuple[str, str], ...]

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cuda", 0)

    @property
    def capability(self) -> str:
        return self.facts.capability

    def memory(self) -> MemoryReading:
        free_bytes, total_bytes = torch.cuda.mem_get_info(self.torch_device)
        peak_bytes = torch.cuda.max_memory_allocated(self.torch_device)
        return MemoryReading(total_bytes, free_bytes, peak_bytes)

    def reserve(self, reserved_bytes: int) -> GpuDevice:
        """Counts as reserved what others use already; holds torch's allocator to the rest."""
        free_bytes, total_bytes = torch.cuda.mem_get_info(self.torch_device)
        in_use_bytes = max(0, total_bytes - free_bytes - CONTEXT_BYTES)
        kept_bytes = max(reserved_bytes, in_use_bytes)
        usable_bytes = total_bytes - kept_bytes
        if usable_bytes < _LEAST_USABLE_BYTES:
            raise DeviceUnavailableError(
                f"{self.facts.name}: of {total_bytes >> 20} MiB, {reserved_bytes >> 20} MiB are "
                f"reserved and {in_use_bytes >> 20} MiB in use by other programs; the "
                f"{usable_bytes >> 20} MiB left are too few. Lower reserved_vram_bytes or stop them"
            )
        if reserved_bytes:
            share = (total_bytes - reserved_bytes - CONTEXT_BYTES) / total_bytes
            torch.cuda.set_per_process_memory_fraction(share, self.torch_device)
        return replace(self, facts=replace(self.facts, reserved_bytes=kept_bytes))

    def begin_stage(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.torch_device)

    def stage_peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self.torch_device)

    def versions(self) -> dict[str, str]:
        return dict(self.library_versions)

    def synchronise(self) -> None:
        torch.cuda.synchronize(self.torch_device)

    def release_cache(self) -> None:
        torch.cuda.empty_cache()


def first_gpu_facts(threads: int, backend: Literal["rocm", "cuda"]) -> DeviceFacts:
    """Facts of GPU 0.

    Raises:
        DeviceUnavailableError: the driver refuses it.
    """
    try:
        properties = torch.cuda.get_device_properties(0)
        fused_attention_width = widest_fused_head()
    except RuntimeError as error:
        raise DeviceUnavailableError(f"the GPU does not answer: {error}") from error
    if backend == "rocm":
        capability = str(properties.gcnArchName).split(":", maxsplit=1)[0]
    else:
        capability = f"sm_{properties.major}{properties.minor}"
    return DeviceFacts(
        kind="gpu",
        name=properties.name,
        total_bytes=properties.total_memory,
        threads=threads,
        backend=backend,
        capability=capability,
        host_bytes=host_memory_bytes(),
        fused_attention_width=fused_attention_width,
        # torch says yes for every ROCm card; RDNA 1 and 2 compute bfloat16 in float32 at best.
        bfloat16=not capability.startswith("gfx10"),
    )


def widest_fused_head() -> int:
    """The widest attention head that torch has a kernel for that keeps no scores; 0 if none."""
    for width in _HEAD_WIDTHS:
        probe = torch.empty((1, 1, _PROBE_TOKENS, width), dtype=torch.float16, device="cuda")
        asked = backends.SDPAParams(probe, probe, probe, None, 0.0, False, False)
        if backends.can_use_flash_attention(asked) or backends.can_use_efficient_attention(asked):
            return width
    return 0
