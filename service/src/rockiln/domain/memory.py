"""How much memory a job will take, in bytes, before it runs. Pure: configs in, bytes out.

``service/docs/memory.md`` explains the terms and what they were measured against.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field, replace

from rockiln.domain.activations import (
    AttentionMemory,
    controlnet_peak,
    decoder_peak,
    denoiser_peak,
    text_encoder_peak,
)
from rockiln.domain.ladder import (
    DENOISE_LADDER,
    IN_PIECES_RUNGS,
    MIOPEN_RUNGS,
    OFFLOAD_RUNGS,
    Capabilities,
    DecodeRung,
    DenoiseRung,
    Rungs,
)
from rockiln.domain.model import (
    Architecture,
    DecoderFacts,
    DenoiserFacts,
    DeviceFacts,
    ModelProfile,
    TransformerFacts,
)
from rockiln.domain.placed_weights import DENOISERS, ITEM_BYTES, Dtype, Weights
from rockiln.domain.request import SIDE_GRID_PX

TILE_PX: dict[DecodeRung, int] = {
    DecodeRung.TILED: 512,
    DecodeRung.SMALL_TILES: 256,
    DecodeRung.OTHER_DTYPE: 512,
    DecodeRung.MIOPEN_FAST_FIND: 256,
    DecodeRung.MIOPEN_FEWER_SOLVERS: 256,
    DecodeRung.CPU: 512,
}
MIB = 1 << 20
# The driver's own share of a process: context, code objects, library handles and workspaces.
CONTEXT_BYTES = 720 * MIB
# Workspaces of the matrix libraries, and the ends of the allocator's segments; not in pieces, where
# the prediction is held to the tensors (service/docs/memory.md).
WORKSPACE_BYTES = 78 * MIB
# What the allocator needs beyond the tensors in use: its blocks are larger, and some lie between.
# Measured as the smallest cap under which a job still ran (service/docs/memory.md).
WEIGHTS_SLACK = 0.065
ACTIVATIONS_SLACK = 0.10
# Of a stage's activations, where a layer comes back from few bits: counted on the meta device.
BESIDE_LAYER = 0.7
# Interpreter and libraries of an engine child.
PROCESS_BYTES = 1200 * MIB
# Of the scores of one slice of attention (``engine.attention``).
SLICE_SCORES_BYTES = 256 * MIB
# Of a host's memory; the rest is for the system and the other processes of the service.
HOST_SHARE = 0.9
_SIZE_STEP_PX = 64
# A model whose configs do not tell its shape is taken for one of SDXL's, the largest UNet run here.
UNKNOWN_SHAPE = Architecture(
    DenoiserFacts((320, 640, 1280), (2, 2, 2), (0, 2, 10), 10, (5, 10, 20), 2048, 4),
    DecoderFacts((128, 256, 512, 512), 2, 4),
)


@dataclass(frozen=True)
class Workload:
    """What is asked of a model.

    Attributes:
        width, height: of the picture, in pixels.
        batch: pictures that share a forward.
        guided: whether each has an unconditional sample beside it.
        patched: LoRAs change weights, whose originals wait in the host's memory.
    """

    width: int
    height: int
    batch: int
    dtype: Dtype
    guided: bool = True
    patched: bool = False

    @property
    def samples(self) -> int:
        return self.batch * (2 if self.guided else 1)


@dataclass(frozen=True)
class Estimate:
    """Predicted peaks.

    Attributes:
        device_bytes: of the device, context and allocator included; of the host for a CPU.
        host_bytes: of the host, for this process.
        by_stage: device bytes at the peak of each stage.
    """

    device_bytes: int
    host_bytes: int
    by_stage: dict[str, int] = field(default_factory=dict)


def decode_dtype(model: ModelProfile, dtype: Dtype, rungs: Rungs, device: DeviceFacts) -> Dtype:
    """What the decoder computes in. float32 is what never overflows; bfloat16 takes half."""
    upcast = model.architecture is not None and model.architecture.decoder.upcast
    if rungs.decode is DecodeRung.CPU or (upcast and dtype == "float16"):
        return "float32"
    if rungs.decode is not DecodeRung.OTHER_DTYPE or dtype == "float32":
        return dtype
    return "bfloat16" if dtype == "float16" and device.bfloat16 else "float32"


def tile_px(rungs: Rungs, width: int, height: int) -> int | None:
    """Side of the tiles a picture is decoded in; None decodes it whole."""
    tile = TILE_PX.get(rungs.decode)
    return None if tile is None or max(width, height) <= tile else tile


def estimate(
    model: ModelProfile,
    work: Workload,
    rungs: Rungs,
    device: DeviceFacts,
    *,
    unload_before_decode: bool = False,
) -> Estimate:
    """Peak memory of a job.

    Args:
        unload_before_decode: whether the denoiser leaves the device before decoding.
    """
    inner = decode_dtype(model, work.dtype, rungs, device)
    weights = Weights.of(model, work.dtype, inner)
    activations = _activations(model, work, rungs, device, ITEM_BYTES[inner])
    for stage, size in _workspaces(model, work.dtype).items():
        beside = round(BESIDE_LAYER * activations[stage])
        activations[stage] = max(activations[stage], beside + size)
    originals = weights.encoders + weights.denoiser if work.patched else 0
    unrounded = _unrounded(model, work.dtype)
    if device.kind == "cpu":
        stages = {
            stage: weights.total + originals + size + PROCESS_BYTES
            for stage, size in activations.items()
        }
        peak = max(*stages.values(), weights.total + unrounded + PROCESS_BYTES)
        return Estimate(peak, peak, stages)
    alone = unload_before_decode or rungs.denoise in OFFLOAD_RUNGS
    on_device = {
        "encode_prompt": weights.at_encode(model, work.dtype, rungs.denoise),
        "denoise": weights.at_denoise(model, rungs.denoise),
        "decode": weights.decoder if alone else weights.total,
    }
    stages = {
        stage: round(
            on_device[stage] * (1 + WEIGHTS_SLACK) + activations[stage] * (1 + ACTIVATIONS_SLACK)
        )
        + (0 if rungs.denoise in IN_PIECES_RUNGS else WORKSPACE_BYTES)
        + CONTEXT_BYTES
        for stage in activations
    }
    on_host = PROCESS_BYTES + weights.total + max(originals, unrounded)
    if rungs.decode is DecodeRung.CPU:
        stages["decode"] = CONTEXT_BYTES
        on_host += activations["decode"]
    return Estimate(max(stages.values()), on_host, stages)


def fits(found: Estimate, device: DeviceFacts) -> bool:
    """Whether device and host (where its size is known) hold ``found``."""
    if device.kind == "cpu":
        return found.device_bytes <= device.usable_bytes * HOST_SHARE
    host_ok = device.host_bytes == 0 or found.host_bytes <= device.host_bytes * HOST_SHARE
    return found.device_bytes <= device.usable_bytes and host_ok


def weights_at_rest(
    model: ModelProfile, dtype: Dtype, decoder_dtype: Dtype, *, resident: bool, device: str
) -> tuple[int, int]:
    """Bytes of a loaded model that does nothing: of the device, and of the host."""
    # ControlNets leave before another model comes.
    total = Weights.of(replace(model, controlnets=()), dtype, decoder_dtype).total
    if device == "cpu":
        return total, total
    return (round(total * (1 + WEIGHTS_SLACK)), 0) if resident else (0, total)


def _workspaces(model: ModelProfile, dtype: Dtype) -> dict[str, int]:
    """What the layer that needs most takes per stage, while it is brought back to ``dtype``."""
    found: dict[str, int] = {}
    for name, held in model.quantised.items():
        stage = "denoise" if name in DENOISERS else "encode_prompt"
        # It comes as float16; text encoders have layers in float32 whatever the rest is in.
        wanted: Dtype = "float32" if stage == "encode_prompt" else dtype
        cast = 0 if wanted == "float16" else held.largest_parameters * ITEM_BYTES[wanted]
        found[stage] = max(found.get(stage, 0), held.workspace_bytes + cast)
    return found


def _unrounded(model: ModelProfile, dtype: Dtype) -> int:
    """Host memory of the largest part that is rounded at load, before it is."""
    full = replace(model, quantised={}).loaded_bytes(ITEM_BYTES[dtype])
    return max((full[name] for name, held in model.quantised.items() if held.at_load), default=0)


def _forward(
    shape: Architecture, work: Workload, rungs: Rungs, device: DeviceFacts
) -> tuple[tuple[int, int], int, AttentionMemory, int]:
    """Size of the latents, bytes of a number in all samples, attention, samples."""
    sliced = None if rungs.denoise is DenoiseRung.FULL else SLICE_SCORES_BYTES
    attention = AttentionMemory(device.fused_attention_width, sliced)
    latents = (work.width // shape.decoder.scale, work.height // shape.decoder.scale)
    samples = 1 if rungs.denoise is DenoiseRung.SPLIT_BATCH else work.samples
    return latents, samples * ITEM_BYTES[work.dtype], attention, samples


def _activations(
    model: ModelProfile, work: Workload, rungs: Rungs, device: DeviceFacts, inner_bytes: int
) -> dict[str, int]:
    """Peak of what is not weights, per stage; the decoder's numbers take ``inner_bytes``."""
    shape = model.architecture or UNKNOWN_SHAPE
    network = _forward(shape, work, rungs, device)
    tile = tile_px(rungs, work.width, work.height)
    decoded = (work.width, work.height) if tile is None else (tile, tile)
    at_denoise = denoiser_peak(shape.denoiser, *network, residuals=bool(model.controlnets))
    for facts in model.controlnets:
        at_denoise = max(at_denoise, controlnet_peak(facts, *network))
    at_decode = decoder_peak(shape.decoder, decoded, inner_bytes, network[2])
    if tile is not None:
        # The tiles that are done, their rows, and the picture put together from them.
        at_decode += 3 * 3 * work.width * work.height * inner_bytes
    return {
        "encode_prompt": text_encoder_peak(shape.text_encoders, ITEM_BYTES[work.dtype], network[2]),
        "denoise": at_denoise,
        "decode": at_decode,
    }


def guides_by_pairs(model: ModelProfile) -> bool:
    """Whether guidance puts an unconditional sample beside each; it may be learnt in instead."""
    denoiser = (model.architecture or UNKNOWN_SHAPE).denoiser
    return not isinstance(denoiser, TransformerFacts) or denoiser.unconditional_sample


def capabilities(model: ModelProfile, device: DeviceFacts, *, samples: int) -> Capabilities:
    """The rungs that exist for this model on this device.

    Args:
        samples: in a full forward; a single one cannot be split.
    """
    shape = model.architecture or UNKNOWN_SHAPE
    facts = shape.denoiser
    denoise = {DenoiseRung.FULL}
    if isinstance(facts, DenoiserFacts) and any(
        layers and channels // heads > device.fused_attention_width
        for layers, channels, heads in zip(
            facts.transformer_layers, facts.channels, facts.heads, strict=True
        )
    ):
        denoise.add(DenoiseRung.SLICED)
    decode = {DecodeRung.FULL, DecodeRung.TILED, DecodeRung.SMALL_TILES}
    if device.kind == "gpu":
        denoise |= OFFLOAD_RUNGS - {DenoiseRung.SPLIT_BATCH}
        decode |= (
            {DecodeRung.CPU} if shape.decoder.upcast else {DecodeRung.OTHER_DTYPE, DecodeRung.CPU}
        )
    if device.backend == "rocm" and device.kind == "gpu":
        decode |= MIOPEN_RUNGS
    if samples > 1:
        denoise.add(DenoiseRung.SPLIT_BATCH)
    return Capabilities(frozenset(denoise), frozenset(decode))


def first_rungs_that_fit(model: ModelProfile, work: Workload, device: DeviceFacts) -> Rungs | None:
    """The fastest rungs whose predicted peak the device and the host hold; None if none do.

    A denoiser that makes room before decoding is tried before a decoder that works in tiles.
    """
    available = capabilities(model, device, samples=work.samples)
    for denoise in DENOISE_LADDER:
        if denoise not in available.denoise:
            continue
        for decode in (DecodeRung.FULL, DecodeRung.TILED, DecodeRung.SMALL_TILES, DecodeRung.CPU):
            if decode not in available.decode:
                continue
            rungs = Rungs(denoise, decode)
            found = estimate(model, work, rungs, device, unload_before_decode=True)
            if max(found.by_stage["encode_prompt"], found.by_stage["denoise"]) > _limit(device):
                break
            if fits(found, device):
                return rungs
    return None


def largest_size_that_fits(
    model: ModelProfile,
    aspect: tuple[int, int],
    device: DeviceFacts,
    *,
    dtype: Dtype,
    guided: bool = True,
) -> tuple[int, int] | None:
    """The largest (width, height) of about this aspect that some rung holds, one picture alone.

    Sides stay within the model's own and on its grid. None if not even the smallest fits.
    """
    width, height = aspect
    longer, shorter = max(aspect), min(aspect)
    sizes = []
    for side in range(model.min_side_px, model.max_side_px + 1, _SIZE_STEP_PX):
        other = max(model.min_side_px, side * shorter // longer // SIDE_GRID_PX * SIDE_GRID_PX)
        sizes.append((side, other) if width >= height else (other, side))

    def unfit(size: tuple[int, int]) -> bool:
        work = Workload(*size, 1, dtype, guided)
        return first_rungs_that_fit(model, work, device) is None

    place = bisect.bisect_left(sizes, True, key=unfit)
    return sizes[place - 1] if place else None


def _limit(device: DeviceFacts) -> float:
    return device.usable_bytes * (HOST_SHARE if device.kind == "cpu" else 1)
