"""Peak of the intermediate tensors of a forward, by walking the network on paper. Pure.

The walk follows the order in which diffusers' modules allocate and drop their tensors. A
convolution on a GPU needs its input in the kernel's memory format: a copy of it is counted there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rockiln.domain.model import DecoderFacts, DenoiserFacts, TextEncoderFacts

# Without a fused kernel torch computes scores in float32 and keeps them before and after softmax.
_SCORE_BYTES = 2 * 4


class _Meter:
    """Live bytes, and the most there were."""

    def __init__(self) -> None:
        self.live = 0
        self.peak = 0

    def spike(self, size: int) -> None:
        self.peak = max(self.peak, self.live + size)


@dataclass(frozen=True)
class AttentionMemory:
    """What attention keeps of its scores.

    Attributes:
        fused_width: largest head with a fused kernel, which keeps none.
        slice_bytes: bound of a slice's scores; None computes them whole.
    """

    fused_width: int
    slice_bytes: int | None

    def scores(self, tokens: int, head_width: int, heads: int) -> int:
        """Bytes of the score matrices of one self-attention over ``heads`` in all samples."""
        if head_width <= self.fused_width:
            return 0
        whole = heads * tokens**2 * _SCORE_BYTES
        return whole if self.slice_bytes is None else min(whole, self.slice_bytes)


def denoiser_peak(
    facts: DenoiserFacts,
    size: tuple[int, int],
    unit: int,
    attention: AttentionMemory,
    samples: int,
) -> int:
    """Of one forward of a UNet.

    Args:
        size: width and height of the latents.
        unit: bytes of one number in all samples.
    """
    sizes = _tokens(size, len(facts.channels))
    meter = _Meter()
    skips: list[int] = []

    def keep(kept_bytes: int) -> None:
        skips.append(kept_bytes)
        meter.live += kept_bytes

    def transformer(level: int, layers: int) -> None:
        if layers:
            tokens = sizes[level]
            channels, heads = facts.channels[level], facts.heads[level]
            scores = attention.scores(tokens, channels // heads, samples * heads)
            _transformer(meter, unit * tokens * channels, scores)

    last = len(facts.channels) - 1
    tokens = sizes[0]
    meter.spike(2 * unit * tokens * facts.channels[0])
    keep(unit * tokens * facts.channels[0])
    present = facts.channels[0]
    for level, channels in enumerate(facts.channels):
        tokens = sizes[level]
        for _ in range(facts.layers[level]):
            _resnet(meter, unit * tokens, present, channels)
            transformer(level, facts.transformer_layers[level])
            keep(unit * tokens * channels)
            present = channels
        if level < last:
            meter.spike(unit * tokens * channels + unit * sizes[level + 1] * channels)
            keep(unit * sizes[level + 1] * channels)
    held = unit * tokens * present
    meter.live += held
    _resnet(meter, unit * tokens, present, present)
    transformer(last, facts.mid_transformer_layers)
    _resnet(meter, unit * tokens, present, present)
    for level in reversed(range(len(facts.channels))):
        tokens, channels = sizes[level], facts.channels[level]
        block_skips = 0
        for _ in range(facts.layers[level] + 1):
            skip = skips.pop()
            block_skips += skip
            joined = present + skip // (unit * tokens)
            # The block's input, and what it is joined to.
            meter.live += unit * tokens * joined
            _resnet(meter, unit * tokens, joined, channels)
            meter.live -= unit * tokens * joined
            meter.live += unit * tokens * channels - held
            held = unit * tokens * channels
            transformer(level, facts.transformer_layers[level])
            present = channels
        meter.live -= block_skips
        if level:
            finer = unit * sizes[level - 1] * present
            meter.spike(3 * finer)
            meter.live += finer - held
            held = finer
    return meter.peak


def decoder_peak(
    facts: DecoderFacts, size: tuple[int, int], item_bytes: int, attention: AttentionMemory
) -> int:
    """Of decoding one picture (or one tile) of ``size`` (width, height) in px, whole."""
    meter = _Meter()
    levels = len(facts.channels)
    width, height = size
    tokens = -(-width // facts.scale) * -(-height // facts.scale)
    present = facts.channels[-1]
    meter.live = item_bytes * tokens * present
    _resnet(meter, item_bytes * tokens, present, present)
    if facts.mid_attention:
        meter.spike(6 * item_bytes * tokens * present)
        meter.spike(5 * item_bytes * tokens * present + attention.scores(tokens, present, 1))
    for place, channels in enumerate(reversed(facts.channels)):
        for _ in range(facts.layers + 1):
            _resnet(meter, item_bytes * tokens, present, channels)
            meter.live += item_bytes * tokens * (channels - present)
            present = channels
        if place < levels - 1:
            meter.spike(3 * 4 * item_bytes * tokens * present)
            meter.live += 3 * item_bytes * tokens * present
            tokens *= 4
    meter.spike(3 * item_bytes * tokens * present)
    return meter.peak


def text_encoder_peak(encoders: Sequence[TextEncoderFacts], item_bytes: int) -> int:
    """Of one prompt through each encoder in turn."""
    return max(
        (
            facts.tokens * item_bytes * (facts.width * (facts.layers + 6) + 2 * facts.inner_width)
            + facts.heads * facts.tokens**2 * _SCORE_BYTES
            for facts in encoders
        ),
        default=0,
    )


def _tokens(size: tuple[int, int], levels: int) -> list[int]:
    """Positions per level; each downsampling convolution rounds up."""
    width, height = size
    return [-(-width // (1 << level)) * -(-height // (1 << level)) for level in range(levels)]


def _resnet(meter: _Meter, unit: int, present: int, channels: int) -> None:
    """A residual block; ``unit`` is the bytes of one channel. Its input is live already."""
    meter.spike(unit * (2 * present + channels))
    meter.spike(unit * 3 * present)
    meter.spike(unit * (4 if present != channels else 3) * channels)


def _transformer(meter: _Meter, tensor: int, scores: int) -> None:
    """An attention and its feed-forward; ``tensor`` is the bytes of one tensor of the level."""
    meter.spike(7 * tensor + scores)
    # Residual, stream and norm; twice four times the width, its half through gelu, their product.
    meter.spike((3 + 8 + 4 + 4) * tensor)
