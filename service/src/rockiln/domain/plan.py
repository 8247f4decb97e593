"""Where and how a job runs, decided before it runs. Pure: same facts, same plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rockiln.domain.model import DeviceFacts, ModelProfile
from rockiln.domain.request import GenerationParameters

Dtype = Literal["float32", "float16", "bfloat16"]
Placement = Literal["resident", "model_offload"]

# Small pictures decode whole; above this the decoder's activations, not its weights, set the peak.
VAE_TILING_FROM_PIXELS = 768 * 768
VAE_TILE_PX = 512
# Share of a GPU's memory that weights may take before they are moved out between stages: the rest
# is for activations, the allocator's slack and the desktop.
RESIDENT_WEIGHTS_SHARE = 0.6


@dataclass(frozen=True)
class Plan:
    """What the engine does with a job. A change of ``placement`` or ``dtype`` needs a new child."""

    device: Literal["cpu", "gpu"]
    dtype: Dtype
    placement: Placement
    channels_last: bool
    vae_tile_px: int | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(parameters: GenerationParameters, model: ModelProfile, device: DeviceFacts) -> Plan:
    """Chooses dtype, placement and policies for one job.

    The CPU runs in float32: half precision is slower there and not reproducible across hosts.
    """
    on_gpu = device.kind == "gpu"
    fits = model.weights_bytes <= RESIDENT_WEIGHTS_SHARE * device.total_bytes
    tiled = parameters.width * parameters.height > VAE_TILING_FROM_PIXELS
    return Plan(
        device=device.kind,
        dtype="float16" if on_gpu else "float32",
        placement="resident" if fits or not on_gpu else "model_offload",
        channels_last=True,
        vae_tile_px=VAE_TILE_PX if tiled else None,
    )
