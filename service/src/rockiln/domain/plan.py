"""Where and how a job runs, decided before it runs. Pure: same facts, same plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rockiln.domain.model import DeviceFacts, ModelProfile
from rockiln.domain.request import GenerationParameters

Dtype = Literal["float32", "float16", "bfloat16"]
Placement = Literal["resident", "model_offload"]

ITEM_BYTES: dict[Dtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
# Small pictures decode whole; above this the decoder's activations, not its weights, set the peak.
VAE_TILING_FROM_PIXELS = 768 * 768
VAE_TILE_PX = 512
# Share of a GPU's memory that weights may take before they are moved out between stages: the rest
# is for activations, the allocator's slack and the desktop.
RESIDENT_WEIGHTS_SHARE = 0.6
# A second picture's rows in one forward fill a GPU that one picture leaves idle. A CPU is busy with
# one: there, rows run one after the other, and each is bit for bit what it is alone.
GPU_BATCH_ROWS = 4


@dataclass(frozen=True)
class Plan:
    """What the engine does with a job. A change of ``placement`` or ``dtype`` needs a new child.

    Attributes:
        placement: "resident" keeps all weights on the device; "model_offload" keeps there only the
            component that works (text encoder, then denoiser, then VAE).
        vae_tile_px: side of the tiles a picture is decoded in; None decodes it whole.
        max_batch_rows: pictures that may share a forward.
    """

    device: Literal["cpu", "gpu"]
    dtype: Dtype
    placement: Placement
    channels_last: bool
    vae_tile_px: int | None
    max_batch_rows: int = 1

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(parameters: GenerationParameters, model: ModelProfile, device: DeviceFacts) -> Plan:
    """Chooses dtype, placement and policies for one job.

    The CPU runs in float32: half precision is slower there and not reproducible across hosts.
    Weights count at the size they have when loaded, not at their size on disk.
    """
    on_gpu = device.kind == "gpu"
    dtype: Dtype = "float16" if on_gpu else "float32"
    weights_bytes = sum(model.loaded_bytes(ITEM_BYTES[dtype]).values())
    fits = weights_bytes <= RESIDENT_WEIGHTS_SHARE * device.total_bytes
    tiled = parameters.width * parameters.height > VAE_TILING_FROM_PIXELS
    return Plan(
        device=device.kind,
        dtype=dtype,
        placement="resident" if fits or not on_gpu else "model_offload",
        channels_last=True,
        vae_tile_px=VAE_TILE_PX if tiled else None,
        max_batch_rows=GPU_BATCH_ROWS if on_gpu else 1,
    )
