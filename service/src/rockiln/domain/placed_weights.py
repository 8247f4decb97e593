"""Bytes of a model's weights as they are loaded, and what of them is on the device. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from rockiln.domain.ladder import DenoiseRung
from rockiln.domain.model import ModelProfile, TextEncoderFacts
from rockiln.domain.weights import piece_share

Dtype = Literal["float32", "float16", "bfloat16"]
ITEM_BYTES: dict[Dtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
DENOISERS, DECODER, TEXT_ENCODER = frozenset({"unet", "transformer"}), "vae", "text_encoder"
_WHOLE = frozenset({DenoiseRung.FULL, DenoiseRung.SLICED})
_DENOISER_WHOLE = frozenset({DenoiseRung.MODEL_OFFLOAD, DenoiseRung.TEXT_ENCODER_OFFLOAD})
_BLOCKS = frozenset({DenoiseRung.TEXT_ENCODER_OFFLOAD, DenoiseRung.GROUP_OFFLOAD})


@dataclass(frozen=True)
class Weights:
    """Bytes of the parts, as loaded."""

    encoders: int
    denoiser: int
    decoder: int
    controlnets: int

    @classmethod
    def of(cls, model: ModelProfile, dtype: Dtype, decoder_dtype: Dtype) -> Self:
        loaded = model.loaded_bytes(ITEM_BYTES[dtype])
        decoder = model.loaded_bytes(ITEM_BYTES[decoder_dtype]).get(DECODER, 0)
        denoiser = sum(size for name, size in loaded.items() if name in DENOISERS)
        encoders = sum(loaded.values()) - loaded.get(DECODER, 0) - denoiser
        encoders += sum(
            facts.float32_parameters * _wider(model, name, dtype)
            for name, facts in _text_encoders(model)
            if facts is not None
        )
        beside = sum(each.parameters for each in model.controlnets) * ITEM_BYTES[dtype]
        return cls(encoders, denoiser, decoder, beside)

    @property
    def total(self) -> int:
        return self.encoders + self.denoiser + self.decoder + self.controlnets

    def at_encode(self, model: ModelProfile, dtype: Dtype, rung: DenoiseRung) -> int:
        """On the device while a prompt is read; in pieces, room for the largest."""
        if rung in _WHOLE:
            return self.total
        if rung is DenoiseRung.MODEL_OFFLOAD:
            return self.encoders
        pieces = [
            _largest_piece(model, name, facts, dtype, blocks=rung in _BLOCKS)
            for name, facts in _text_encoders(model)
        ]
        return max(pieces, default=0)

    def at_denoise(self, model: ModelProfile, rung: DenoiseRung) -> int:
        """Likewise. A ControlNet's pieces are no larger than the denoiser's, and work before it."""
        if rung in _WHOLE:
            return self.total
        if rung in _DENOISER_WHOLE:
            return self.denoiser + self.controlnets
        return round(piece_share(model.architecture, blocks=rung in _BLOCKS) * self.denoiser)


def _text_encoders(model: ModelProfile) -> Iterator[tuple[str, TextEncoderFacts | None]]:
    """By name; None where the configs do not tell their shape."""
    known = () if model.architecture is None else model.architecture.text_encoders
    names = [name for name in model.component_bytes if name.startswith(TEXT_ENCODER)]
    for place, name in enumerate(names):
        yield name, known[place] if place < len(known) else None


def _wider(model: ModelProfile, name: str, dtype: Dtype) -> int:
    """Bytes more that a number takes where it stays in float32."""
    exact = dtype == "float16" and name not in model.quantised
    return ITEM_BYTES["float32"] - ITEM_BYTES[dtype] if exact else 0


def _largest_piece(
    model: ModelProfile, name: str, facts: TextEncoderFacts | None, dtype: Dtype, *, blocks: bool
) -> int:
    """Bytes of a text encoder's; of all of it, where nothing is known."""
    if facts is None:
        return model.loaded_bytes(ITEM_BYTES[dtype])[name]
    held = model.quantised.get(name)
    item = ITEM_BYTES[dtype] if held is None else held.held_bytes / held.parameters
    wide = _wider(model, name, dtype) if facts.float32_parameters else 0
    widest = facts.width * facts.inner_width
    piece = widest * (item + wide)
    if blocks and facts.block_parameters:
        piece = facts.block_parameters * item + widest * wide
    return round(piece)
