"""Where and how a job runs, decided before it runs. Pure: same facts, same plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from rockiln.domain import memory
from rockiln.domain.ladder import DecodeRung, DenoiseRung, Rungs
from rockiln.domain.memory import Estimate, Workload
from rockiln.domain.model import DeviceFacts, ModelProfile
from rockiln.domain.placed_weights import DENOISERS, TEXT_ENCODER, Dtype
from rockiln.domain.request import GenerationParameters

Placement = Literal[
    "resident", "model_offload", "text_encoder_offload", "group_offload", "sequential_offload",
]  # fmt: skip

# A second picture's rows in one forward fill a GPU that one picture leaves idle. A CPU is busy with
# one: there, rows run one after the other, and each is bit for bit what it is alone.
GPU_BATCH_ROWS = 4
FULL_RUNGS = Rungs()
FRUGAL_RUNGS = Rungs(DenoiseRung.SPLIT_BATCH, DecodeRung.SMALL_TILES)
_PLACEMENTS: dict[DenoiseRung, Placement] = {
    DenoiseRung.FULL: "resident",
    DenoiseRung.SLICED: "resident",
    DenoiseRung.MODEL_OFFLOAD: "model_offload",
    DenoiseRung.TEXT_ENCODER_OFFLOAD: "text_encoder_offload",
    DenoiseRung.GROUP_OFFLOAD: "group_offload",
    DenoiseRung.SEQUENTIAL_OFFLOAD: "sequential_offload",
    DenoiseRung.SPLIT_BATCH: "sequential_offload",
}
# Documented variables (rocm-libraries projects/miopen/docs/reference/env_variables.rst). FAST takes
# the first solver that the database or a heuristic names, and searches nothing.
_MIOPEN_FAST_FIND = {"MIOPEN_FIND_MODE": "FAST"}
# What is left is GEMM: no Winograd, FFT, direct or implicit-GEMM kernel is tried.
_MIOPEN_FEWER_SOLVERS = {
    **_MIOPEN_FAST_FIND,
    "MIOPEN_DEBUG_CONV_WINOGRAD": "0",
    "MIOPEN_DEBUG_CONV_FFT": "0",
    "MIOPEN_DEBUG_CONV_DIRECT": "0",
    "MIOPEN_DEBUG_CONV_IMPLICIT_GEMM": "0",
}


def rung_environment(rungs: Rungs) -> dict[str, str]:
    """Variables that a child on these rungs is started with, beside the release's own."""
    match rungs.decode:
        case DecodeRung.MIOPEN_FAST_FIND:
            return dict(_MIOPEN_FAST_FIND)
        case DecodeRung.MIOPEN_FEWER_SOLVERS:
            return dict(_MIOPEN_FEWER_SOLVERS)
        case _:
            return {}


@dataclass(frozen=True)
class Plan:
    """What the engine does with a job.

    Attributes:
        placement: "resident" keeps all weights on the device; "model_offload" keeps there only the
            component that works (text encoder, then denoiser, then VAE); "text_encoder_offload" of
            a text encoder only a block; "group_offload" and "sequential_offload" of text encoders
            and denoiser only a block or a layer.
        vae_tile_px: side of the tiles a picture is decoded in; None decodes it whole.
        max_batch_rows: pictures that may share a forward.
        rungs: where on the degrade ladder this is.
        sliced_attention: no whole matrix of scores in memory.
        split_samples: one sample per forward, guidance included.
        decode_dtype, decode_device: what the decoder works in and on.
        unload_before_decode: the denoiser and text encoder leave the device for it.
        quantisation: parts whose weights are held in few bits → kind; a lossy way.
        environment: variables the child has to have been started with.
        predicted_bytes, predicted_host_bytes: of the device and of the host, at the peak.
    """

    device: Literal["cpu", "gpu"]
    dtype: Dtype
    placement: Placement
    channels_last: bool
    vae_tile_px: int | None
    max_batch_rows: int = 1
    rungs: Rungs = FULL_RUNGS
    sliced_attention: bool = False
    split_samples: bool = False
    decode_dtype: Dtype | None = None
    decode_device: Literal["device", "cpu"] = "device"
    unload_before_decode: bool = False
    quantisation: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    predicted_bytes: int = 0
    predicted_host_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "rungs": self.rungs.as_dict()}

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError on anything ``as_dict`` did not give."""
        return cls(**said | {"rungs": Rungs.from_dict(said["rungs"])})

    def needs_new_child(self, other: Plan, *, same_model: bool = True) -> bool:
        """Whether a child that runs this plan cannot take ``other`` as well.

        Tiles, slices and rows change between two forwards; weights, dtypes and variables do not.
        Another model has a decoder of its own, which may work in another dtype.
        """
        names = ["device", "dtype", "placement", "environment"]
        if same_model:
            names += ["decode_dtype", "decode_device", "quantisation"]
        return any(getattr(self, name) != getattr(other, name) for name in names)


def plan(
    parameters: GenerationParameters,
    model: ModelProfile,
    device: DeviceFacts,
    *,
    remembered: Rungs | None = None,
    floor: Rungs | None = None,
) -> Plan:
    """Chooses dtype, rungs and placement for one job.

    The CPU runs in float32: half precision is slower there and not reproducible across hosts.

    Args:
        remembered: rungs that worked for this key; they are taken before the predicted ones.
        floor: rungs that this job has climbed to; nothing above them is taken.
    """
    way = _first_way_that_fits(parameters, model, device)
    model, work, predicted = way.model, way.work, way.rungs
    available = memory.capabilities(model, device, samples=work.samples)
    # Nothing fits: admission refuses such a job; one that got here tries the most frugal way.
    rungs = available.settle((remembered or predicted or FRUGAL_RUNGS).lower_of(floor))

    def peak(*, unload: bool) -> Estimate:
        return memory.estimate(model, work, rungs, device, unload_before_decode=unload)

    resident = _PLACEMENTS[rungs.denoise] == "resident" and device.kind == "gpu"
    unload = resident and (
        rungs.decode is not DecodeRung.FULL
        or peak(unload=False).by_stage["decode"] > device.usable_bytes
    )
    split = rungs.denoise is DenoiseRung.SPLIT_BATCH
    found = peak(unload=unload)
    return Plan(
        device=device.kind,
        dtype=work.dtype,
        placement=_PLACEMENTS[rungs.denoise] if device.kind == "gpu" else "resident",
        channels_last=True,
        vae_tile_px=memory.tile_px(rungs, *parameters.largest_size),
        max_batch_rows=1 if split else way.rows,
        rungs=rungs,
        sliced_attention=rungs.denoise is not DenoiseRung.FULL
        and DenoiseRung.SLICED in available.denoise,
        split_samples=split,
        decode_dtype=memory.decode_dtype(model, work.dtype, rungs, device),
        decode_device="cpu" if rungs.decode is DecodeRung.CPU else "device",
        unload_before_decode=unload,
        quantisation=model.quantisation,
        environment=rung_environment(rungs),
        predicted_bytes=found.device_bytes,
        predicted_host_bytes=found.host_bytes,
    )


@dataclass(frozen=True)
class Admission:
    """Whether a job can run on a device at all.

    Attributes:
        rungs: the first that fit; None if none do.
        predicted: peak at these rungs; of the most frugal ones if none fit.
        quantisation: as ``Plan.quantisation``.
        largest: the largest (width, height) of this aspect that fits, where the job does not;
            None if no size does.
    """

    fits: bool
    rungs: Rungs | None
    predicted: Estimate
    largest: tuple[int, int] | None = None
    quantisation: dict[str, str] = field(default_factory=dict)


def admit(parameters: GenerationParameters, model: ModelProfile, device: DeviceFacts) -> Admission:
    """Judges a job before it is queued: pure, a few milliseconds."""
    way = _first_way_that_fits(parameters, model, device)
    model, work, rungs = way.model, way.work, way.rungs
    available = memory.capabilities(model, device, samples=work.samples)
    predicted = memory.estimate(
        model, work, rungs or available.settle(FRUGAL_RUNGS), device, unload_before_decode=True
    )
    if rungs is not None:
        return Admission(True, rungs, predicted, quantisation=model.quantisation)
    largest = memory.largest_size_that_fits(
        model, (work.width, work.height), device, dtype=work.dtype, guided=work.guided
    )
    return Admission(False, None, predicted, largest, model.quantisation)


@dataclass(frozen=True)
class _Way:
    """A model with some of its parts in few bits, what is asked of it, and the rungs that fit."""

    model: ModelProfile
    work: Workload
    rows: int
    rungs: Rungs | None


def _first_way_that_fits(
    parameters: GenerationParameters, model: ModelProfile, device: DeviceFacts
) -> _Way:
    """As the model's owner wants it; rounded further only where that fits on no rung.

    The largest text encoder comes first: it makes no pixel. The last way, where none fits.
    """
    encoders = [name for name in model.quantisable if name.startswith(TEXT_ENCODER)]
    encoders.sort(key=lambda name: -model.quantisable[name].parameters)
    denoisers = [name for name in model.quantisable if name in DENOISERS]
    steps = [(), tuple(encoders[:1]), (*encoders[:1], *denoisers)]
    found = None
    for names in dict.fromkeys(steps):
        rounded = model.rounded(names)
        work, rows = _workload(parameters, rounded, device)
        rungs = memory.first_rungs_that_fit(rounded, work, device)
        found = _Way(rounded, work, rows, rungs)
        if rungs is not None:
            break
    if found is None:
        raise AssertionError("there is always one way")
    return found


def dtype_for(model: ModelProfile, device: DeviceFacts) -> Dtype:
    """What a model's weights are on a device; cards without bfloat16 of their own emulate it."""
    return model.half if device.kind == "gpu" else "float32"


def _workload(
    parameters: GenerationParameters, model: ModelProfile, device: DeviceFacts
) -> tuple[Workload, int]:
    """What is asked, and how many pictures may share a forward.

    As many as fit with all weights on the device, at least one.
    """
    work = Workload(
        *parameters.largest_size,
        1,
        dtype_for(model, device),
        parameters.guided and memory.guides_by_pairs(model),
        bool(parameters.loras),
    )
    rows = GPU_BATCH_ROWS if device.kind == "gpu" else 1
    while rows > 1:
        wide = replace(work, batch=rows)
        found = memory.estimate(model, wide, Rungs(), device, unload_before_decode=True)
        if found.by_stage["denoise"] <= device.usable_bytes:
            break
        rows //= 2
    return replace(work, batch=min(parameters.num_images, rows)), rows
