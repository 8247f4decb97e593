"""Peak of the intermediate tensors of a forward, by walking the network on paper. Pure.

The walk follows the order in which diffusers' modules allocate and drop their tensors. A
convolution on a GPU needs its input in the kernel's memory format: a copy of it is counted there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rockiln.domain.model import (
    ControlNetFacts,
    DecoderFacts,
    DenoiserFacts,
    TextEncoderFacts,
    TransformerFacts,
)

# Without a fused kernel torch computes scores in float32, keeps them before and after softmax, and
# marks rows that are masked whole.
_SCORE_BYTES = 2 * 4 + 1
_FLOAT32_BYTES = 4
# Of the autoencoders that ControlNets are made for: eight along each side.
_PIXELS_PER_LATENT = 64
# Walks that are kept: of some models, at each size and rung that a job is planned for.
_WALKS_KEPT = 1024


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


@lru_cache(_WALKS_KEPT)
def denoiser_peak(
    facts: DenoiserFacts | TransformerFacts,
    size: tuple[int, int],
    unit: int,
    attention: AttentionMemory,
    samples: int,
    *,
    residuals: bool = False,
) -> int:
    """Of one forward.

    Args:
        size: width and height of the latents.
        unit: bytes of one number in all samples.
        residuals: a ControlNet's results wait to be added to a UNet's skips.
    """
    if isinstance(facts, TransformerFacts):
        return _block_peak(facts, size, unit, attention, samples)
    walk = _UnetWalk(facts, _tokens(size, len(facts.channels)), unit, attention, samples)
    walk.down()
    skips = walk.skips_bytes if residuals else 0
    walk.meter.spike(skips)  # their sums, before what was added up goes
    walk.middle()
    walk.up()
    return walk.meter.peak + skips


def controlnet_peak(
    facts: ControlNetFacts,
    size: tuple[int, int],
    unit: int,
    attention: AttentionMemory,
    samples: int,
) -> int:
    """Likewise of a ControlNet, beside the results of those before it."""
    shape = facts.shape
    walk = _UnetWalk(shape, _tokens(size, len(shape.channels)), unit, attention, samples)
    # A convolution at the picture's full size: what goes in, what comes out and a copy of it.
    pixels = size[0] * size[1] * _PIXELS_PER_LATENT
    walk.meter.spike(3 * unit * pixels * facts.hint_channels)
    walk.down()
    results = walk.skips_bytes
    walk.middle()
    walk.meter.spike(results)
    return walk.meter.peak + results


class _UnetWalk:
    """Down, through the middle and up again; ``skips`` wait on the way down for the way up."""

    def __init__(
        self,
        facts: DenoiserFacts,
        tokens: list[int],
        unit: int,
        attention: AttentionMemory,
        samples: int,
    ) -> None:
        self.meter = _Meter()
        self._facts = facts
        self._units = [unit * count for count in tokens]  # bytes of one channel, per level
        self._tokens = tokens
        self._attention = attention
        self._samples = samples
        self._skips: list[int] = []
        self._present = facts.channels[0]  # channels of the stream
        self._held = 0  # its bytes

    def down(self) -> None:
        facts, units = self._facts, self._units
        self.meter.spike(2 * units[0] * self._present)
        self._keep(units[0] * self._present)
        for level, channels in enumerate(facts.channels):
            for _ in range(facts.layers[level]):
                _resnet(self.meter, units[level], self._present, channels)
                self._attend(level, facts.transformer_layers[level])
                self._keep(units[level] * channels)
                self._present = channels
            if level < len(units) - 1:
                self.meter.spike((units[level] + units[level + 1]) * channels)
                self._keep(units[level + 1] * channels)

    def middle(self) -> None:
        unit, channels = self._units[-1], self._present
        self._held = unit * channels
        self.meter.live += self._held
        _resnet(self.meter, unit, channels, channels)
        self._attend(len(self._units) - 1, self._facts.mid_transformer_layers)

    @property
    def skips_bytes(self) -> int:
        return sum(self._skips)

    def up(self) -> None:
        for level in reversed(range(len(self._units))):
            # The caller holds on to the block's input until it ends.
            entering = self._held
            self.meter.live += entering
            skips = sum(self._join(level) for _ in range(self._facts.layers[level] + 1))
            self.meter.live -= skips + entering
            if level:
                finer = self._units[level - 1] * self._present
                self.meter.spike(3 * finer)
                self.meter.live += finer - self._held
                self._held = finer

    def _join(self, level: int) -> int:
        """One residual block of the way up; the bytes of the skip that it takes in."""
        unit, channels, skip = self._units[level], self._facts.channels[level], self._skips.pop()
        joined = self._present + skip // unit
        self.meter.live += unit * joined
        _resnet(self.meter, unit, joined, channels)
        self.meter.live += unit * (channels - joined) - self._held
        self._held = unit * channels
        self._attend(level, self._facts.transformer_layers[level])
        self._present = channels
        return skip

    def _keep(self, kept_bytes: int) -> None:
        self._skips.append(kept_bytes)
        self.meter.live += kept_bytes

    def _attend(self, level: int, layers: int) -> None:
        if layers:
            channels, heads = self._facts.channels[level], self._facts.heads[level]
            scores = self._attention.scores(
                self._tokens[level], channels // heads, self._samples * heads
            )
            _transformer(self.meter, self._units[level] * channels, scores)


def _block_peak(
    facts: TransformerFacts,
    size: tuple[int, int],
    unit: int,
    attention: AttentionMemory,
    samples: int,
) -> int:
    """Of the joint blocks or the single ones, the larger of a block's two halves; alike in a kind.

    Counted in tensors as wide as the stream, of the picture's tokens, the text's, or both.
    """
    picture = -(-size[0] // facts.patch) * -(-size[1] // facts.patch)
    text, both = facts.text_tokens, picture + facts.text_tokens
    scores = attention.scores(both, facts.width // facts.heads, samples * facts.heads)
    plain = 8 * both if scores else 0  # queries, keys and values in float32
    # Turned, as float32: its two products and one of their factors. Beside float32 no copies.
    exact = unit // samples == _FLOAT32_BYTES
    turned = 0 if not facts.rotary else (3 if exact else 7) * both
    # Streams, their norms, queries, keys and values, those of the text alone once more, the result
    # and its copy in another order.
    attended = 5 * both + 3 * text + max(2 * both, turned, plain)
    # Streams before and after attention, its results, norms; the inner half before and after gelu,
    # or two of them, one through silu, and their product.
    inner = (4 if facts.gated else 2) * facts.inner
    fed = (2 + facts.held) * both + text + (2 + inner) * picture
    fed += 2 * picture if facts.dual_blocks else 0
    joint = max(attended, fed) if facts.joint_blocks else 0.0
    single = 0.0
    if facts.single_blocks and facts.gated:
        # In turn: the stream twice, where it came from, attention's result, norm. Else the stream,
        # its norm, all that is made of it at once, queries and keys anew, both results, joined.
        beside = 5 if facts.in_turn else 9.7
        single = (beside + inner) * both
    elif facts.single_blocks:
        # The stream twice, its norm, the feed-forward's inner half; then as above.
        single = max(7 * both + 3 * both + max(2 * both, turned, plain), 13 * both)
    return round(unit * facts.width * max(joint, single)) + scores


@lru_cache(_WALKS_KEPT)
def decoder_peak(
    facts: DecoderFacts, size: tuple[int, int], item_bytes: int, attention: AttentionMemory
) -> int:
    """Of decoding one picture (or one tile) of ``size`` (width, height) in px, whole."""
    if facts.film:
        return _film_decoder_peak(facts, size, item_bytes, attention)
    meter = _Meter()
    levels = len(facts.channels)
    width, height = size
    tokens = -(-width // facts.scale) * -(-height // facts.scale)
    present = facts.channels[-1]
    meter.live = item_bytes * tokens * present
    exact = item_bytes == _FLOAT32_BYTES
    _resnet(meter, item_bytes * tokens, present, present, exact=exact)
    if facts.mid_attention:
        meter.spike(6 * item_bytes * tokens * present)
        meter.spike(5 * item_bytes * tokens * present + attention.scores(tokens, present, 1))
    for place, channels in enumerate(reversed(facts.channels)):
        for _ in range(facts.layers + 1):
            _resnet(meter, item_bytes * tokens, present, channels, exact=exact)
            meter.live += item_bytes * tokens * (channels - present)
            present = channels
        if place < levels - 1:
            meter.spike(3 * 4 * item_bytes * tokens * present)
            meter.live += 3 * item_bytes * tokens * present
            tokens *= 4
    meter.spike(3 * item_bytes * tokens * present)
    return meter.peak


def _film_decoder_peak(
    facts: DecoderFacts, size: tuple[int, int], item_bytes: int, attention: AttentionMemory
) -> int:
    """The last convolution: each one before has kept its input, for a next frame to look back at.

    Its own input is copied with room for two frames before it.
    """
    kept = 0
    for channels, places in zip(facts.channels, _tokens(size, len(facts.channels)), strict=True):
        kept += 2 * (facts.layers + 1) * channels * places
    coarsest = facts.channels[-1] * places
    last = 7 * facts.channels[0] * size[0] * size[1]
    middle = item_bytes * 9 * coarsest + attention.scores(places, facts.channels[-1], 1)
    return max(item_bytes * (kept + 4 * coarsest + last), middle)


def text_encoder_peak(
    encoders: Sequence[TextEncoderFacts], item_bytes: int, attention: AttentionMemory
) -> int:
    """Of one prompt through each encoder in turn."""
    return max((_encoder_peak(facts, item_bytes, attention) for facts in encoders), default=0)


def _encoder_peak(facts: TextEncoderFacts, item_bytes: int, attention: AttentionMemory) -> int:
    width, inner = facts.width, facts.inner_width
    scores = attention.scores(facts.tokens, width // facts.heads, facts.heads)
    if not facts.float32_parameters:  # what each layer gives is kept
        numbers = width * (facts.layers + 6) + 2 * inner
        return facts.tokens * item_bytes * numbers + scores
    # T5: the stream and what goes in and out; two inner halves and their product, which goes on in
    # float32; what the distance of two tokens adds to each score, and a copy in the kernel's order.
    fed = item_bytes * (4 * width + 3 * inner) + _FLOAT32_BYTES * inner
    distances = 2 * item_bytes * facts.heads * facts.tokens
    return facts.tokens * (fed + distances) + scores


def _tokens(size: tuple[int, int], levels: int) -> list[int]:
    """Positions per level; each downsampling convolution rounds up."""
    width, height = size
    return [-(-width // (1 << level)) * -(-height // (1 << level)) for level in range(levels)]


def _resnet(meter: _Meter, unit: int, present: int, channels: int, *, exact: bool = False) -> None:
    """A residual block; ``unit`` is the bytes of one channel. Its input is live already.

    Args:
        exact: in float32, whose kernels work in another memory format on copies of their own.
    """
    # Norm, activation and its copy in the convolution's memory format.
    workspace = present + channels if exact else 0
    meter.spike(unit * (2 * present + channels + workspace))
    meter.spike(unit * (4 if present != channels else 3) * channels)


def _transformer(meter: _Meter, tensor: int, scores: int) -> None:
    """An attention and its feed-forward; ``tensor`` is the bytes of one tensor of the level."""
    # Residual, stream, norm, query, key, value and result; plain attention has them in float32 too.
    meter.spike(7 * tensor + (8 * tensor + scores if scores else 0))
    # Residual, stream, norm and the last attention's result; twice four times the width, its half
    # through gelu, their product.
    meter.spike((4 + 8 + 4 + 4) * tensor)
