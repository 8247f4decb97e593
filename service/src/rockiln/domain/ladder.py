"""The degrade ladder: which safer way of working comes next after a fault. Pure.

Denoising and decoding have a ladder each, ordered from fast to frugal. A rung that a device or a
model does not have is skipped. Changing rung means a new engine child.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Self, TypeVar

from rockiln.domain.fault import Fault, FaultCode

# One job in so many tries one rung up, so that a host recovers after an upgrade.
PROBE_EVERY_JOBS = 50
_BUCKET_PX = 64
Rung = TypeVar("Rung")


class DenoiseRung(StrEnum):
    """How the denoiser works, from fast to frugal.

    FULL: all weights on the device, fused attention where the device has it.
    SLICED: attention in slices, so that no whole matrix of scores is in memory.
    MODEL_OFFLOAD: on the device only the component of the stage at work.
    TEXT_ENCODER_OFFLOAD: likewise, and of the text encoders only the block at work.
    GROUP_OFFLOAD: of the denoiser, too, only the block at work.
    SEQUENTIAL_OFFLOAD: of text encoders and denoiser only the layer at work.
    SPLIT_BATCH: likewise, and one sample per forward: pictures and guidance one after the other.
    """

    FULL = "full"
    SLICED = "sliced"
    MODEL_OFFLOAD = "model_offload"
    TEXT_ENCODER_OFFLOAD = "text_encoder_offload"
    GROUP_OFFLOAD = "group_offload"
    SEQUENTIAL_OFFLOAD = "sequential_offload"
    SPLIT_BATCH = "split_batch"


class DecodeRung(StrEnum):
    """How latents become a picture, from fast and whole to slow and sure.

    FULL: whole. TILED, SMALL_TILES: in overlapping tiles of 512 and 256 px.
    OTHER_DTYPE: the decoder in bfloat16 or float32, in tiles of 512 px.
    MIOPEN_FAST_FIND, MIOPEN_FEWER_SOLVERS: MIOpen without its search, then without the solvers
        that need large workspaces or fail; both in tiles of 256 px.
    CPU: on the host's processor in float32.
    """

    FULL = "full"
    TILED = "tiled"
    SMALL_TILES = "small_tiles"
    OTHER_DTYPE = "other_dtype"
    MIOPEN_FAST_FIND = "miopen_fast_find"
    MIOPEN_FEWER_SOLVERS = "miopen_fewer_solvers"
    CPU = "cpu"


DENOISE_LADDER: tuple[DenoiseRung, ...] = tuple(DenoiseRung)
DECODE_LADDER: tuple[DecodeRung, ...] = tuple(DecodeRung)
OFFLOAD_RUNGS = frozenset(DENOISE_LADDER[DENOISE_LADDER.index(DenoiseRung.MODEL_OFFLOAD) :])
IN_PIECES_RUNGS = frozenset(DENOISE_LADDER[DENOISE_LADDER.index(DenoiseRung.GROUP_OFFLOAD) :])
MIOPEN_RUNGS = frozenset({DecodeRung.MIOPEN_FAST_FIND, DecodeRung.MIOPEN_FEWER_SOLVERS})

_C = FaultCode
# Deaths and hangs whose cause is not known to be memory: any change of way may help.
CRASHES = frozenset({_C.DECODE_CRASH, _C.HANG, _C.GPU_PAGE_FAULT, _C.GPU_RESET, _C.ENGINE_DIED})
_MIOPEN_FAULTS = frozenset({_C.MIOPEN_NO_ALGORITHM, _C.MIOPEN_FIND_STALL})
_DECODE_FOR_MIOPEN = MIOPEN_RUNGS | {DecodeRung.CPU}
_DECODE_HELP: dict[FaultCode, frozenset[DecodeRung]] = {
    # Another dtype needs as much memory or more.
    _C.GPU_OOM: frozenset(DECODE_LADDER) - {DecodeRung.OTHER_DTYPE},
    _C.BAD_OUTPUT: frozenset({DecodeRung.OTHER_DTYPE, DecodeRung.CPU}),
    **dict.fromkeys(CRASHES, frozenset(DECODE_LADDER)),
}


@dataclass(frozen=True)
class Rungs:
    """Where a job stands on both ladders."""

    denoise: DenoiseRung = DenoiseRung.FULL
    decode: DecodeRung = DecodeRung.FULL

    def as_dict(self) -> dict[str, str]:
        return {"denoise": self.denoise.value, "decode": self.decode.value}

    @classmethod
    def from_dict(cls, words: dict[str, str]) -> Self:
        """Raises KeyError or ValueError on anything ``as_dict`` did not write."""
        return cls(DenoiseRung(words["denoise"]), DecodeRung(words["decode"]))

    @classmethod
    def known(cls, words: dict[str, str]) -> Self | None:
        """None: a rung has a name that this version does not have."""
        try:
            return cls.from_dict(words)
        except ValueError:
            return None

    def lower_of(self, other: Rungs | None) -> Rungs:
        """Per ladder the more frugal rung of the two."""
        if other is None:
            return self
        return Rungs(
            max(self.denoise, other.denoise, key=DENOISE_LADDER.index),
            max(self.decode, other.decode, key=DECODE_LADDER.index),
        )


@dataclass(frozen=True)
class Capabilities:
    """The rungs that exist for one model on one device. FULL always does."""

    denoise: frozenset[DenoiseRung] = frozenset(DENOISE_LADDER)
    decode: frozenset[DecodeRung] = frozenset(DECODE_LADDER)

    def settle(self, rungs: Rungs) -> Rungs:
        """``rungs``, or the next ones up towards FULL that exist here."""
        return Rungs(
            _last(DENOISE_LADDER[: DENOISE_LADDER.index(rungs.denoise) + 1], self.denoise),
            _last(DECODE_LADDER[: DECODE_LADDER.index(rungs.decode) + 1], self.decode),
        )


ALL_RUNGS = Capabilities()


def climb(rungs: Rungs, fault: Fault, *, available: Capabilities = ALL_RUNGS) -> Rungs | None:
    """The rungs for the next attempt after ``fault``; None when the ladder is used up.

    The fault's class chooses the ladder together with the stage it struck in, and which rungs of
    it could help. A fault that no rung helps against (a request's bug) gives None as well.
    """
    if fault.code == _C.HOST_OOM:
        return _lighten_host(rungs, available)
    in_decode = fault.stage in {"encode_image", "decode", "encode"}
    if fault.code in _MIOPEN_FAULTS:
        # MIOpen serves both networks; only decoding can leave it altogether.
        return _decode(rungs, available, _DECODE_FOR_MIOPEN if in_decode else MIOPEN_RUNGS)
    if in_decode:
        return _decode(rungs, available, _DECODE_HELP.get(fault.code, frozenset()))
    if fault.code == _C.GPU_OOM and fault.stage in {"start", "encode_prompt"}:
        return _denoise(rungs, available, OFFLOAD_RUNGS)
    # Noise that is no number (bad_output) stays so on every rung.
    if fault.code != _C.GPU_OOM and fault.code not in CRASHES:
        return None
    helpful = frozenset(DENOISE_LADDER)
    if fault.stage == "denoise":
        helpful -= {DenoiseRung.TEXT_ENCODER_OFFLOAD}
    return _denoise(rungs, available, helpful)


def descend(rungs: Rungs, *, available: Capabilities = ALL_RUNGS) -> Rungs:
    """One rung up towards FULL, on the ladder that is further down; FULL stays."""
    denoise, decode = DENOISE_LADDER.index(rungs.denoise), DECODE_LADDER.index(rungs.decode)
    if decode >= denoise and decode > 0:
        return Rungs(rungs.denoise, _last(DECODE_LADDER[:decode], available.decode))
    if denoise > 0:
        return Rungs(_last(DENOISE_LADDER[:denoise], available.denoise), rungs.decode)
    return rungs


@dataclass(frozen=True)
class RungKey:
    """What a rung that worked is remembered for.

    Attributes:
        revision: of the model's files.
        batch: pictures in the job.
        gpu: unique id of the card, or its name.
        release: of ROCm and torch, so that an upgrade starts afresh.
    """

    revision: str
    size_bucket: str
    batch: int
    dtype: str
    gpu: str
    release: str

    @property
    def text(self) -> str:
        """One line, the same for equal keys; parts cannot run into each other."""
        parts = (
            self.revision, self.size_bucket, str(self.batch), self.dtype, self.gpu, self.release,
        )  # fmt: skip
        return "|".join(part.replace("%", "%25").replace("|", "%7C") for part in parts)

    @classmethod
    def of_text(cls, text: str) -> Self | None:
        """What ``text`` is the line of, or None."""
        parts = [part.replace("%7C", "|").replace("%25", "%") for part in text.split("|")]
        if len(parts) != len(fields(cls)) or not parts[2].isdecimal():
            return None
        revision, size, batch, dtype, gpu, release = parts
        return cls(revision, size, int(batch), dtype, gpu, release)


def size_bucket(width: int, height: int) -> str:
    """Sizes that need about the same memory, each side rounded up to 64 px: "768x512"."""
    up = [-(-side // _BUCKET_PX) * _BUCKET_PX for side in (width, height)]
    return f"{up[0]}x{up[1]}"


def _decode(rungs: Rungs, available: Capabilities, helpful: frozenset[DecodeRung]) -> Rungs | None:
    rung = _first(DECODE_LADDER[DECODE_LADDER.index(rungs.decode) + 1 :], available.decode, helpful)
    return None if rung is None else Rungs(rungs.denoise, rung)


def _denoise(
    rungs: Rungs, available: Capabilities, helpful: frozenset[DenoiseRung]
) -> Rungs | None:
    rung = _first(
        DENOISE_LADDER[DENOISE_LADDER.index(rungs.denoise) + 1 :], available.denoise, helpful
    )
    return None if rung is None else Rungs(rung, rungs.decode)


def _lighten_host(rungs: Rungs, available: Capabilities) -> Rungs | None:
    """Less in the host's memory: decoding off the CPU, then weights back onto the device.

    Where the device is the CPU itself (no offload exists) it is the frugal rungs that help.
    """
    if DecodeRung.CPU in available.decode and rungs.decode is DecodeRung.CPU:
        on_device = available.decode - {DecodeRung.CPU}
        return Rungs(rungs.denoise, _last(DECODE_LADDER, on_device))
    if not available.denoise & {DenoiseRung.MODEL_OFFLOAD}:
        return _decode(
            rungs, available, frozenset({DecodeRung.TILED, DecodeRung.SMALL_TILES})
        ) or _denoise(rungs, available, frozenset({DenoiseRung.SLICED, DenoiseRung.SPLIT_BATCH}))
    if rungs.denoise in OFFLOAD_RUNGS:
        on_device_rungs = available.denoise - OFFLOAD_RUNGS
        return Rungs(_last(DENOISE_LADDER, on_device_rungs), rungs.decode)
    return None


def _first(
    ladder: Iterable[Rung], available: frozenset[Rung], helpful: frozenset[Rung]
) -> Rung | None:
    return next((rung for rung in ladder if rung in available and rung in helpful), None)


def _last(ladder: Iterable[Rung], available: frozenset[Rung]) -> Rung:
    """The last rung that exists; the first of the ladder always does."""
    rungs = list(ladder)
    return next((rung for rung in reversed(rungs) if rung in available), rungs[0])
