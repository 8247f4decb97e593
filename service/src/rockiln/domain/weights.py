"""Which share of a denoiser's weights its largest piece holds. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from rockiln.domain.model import Architecture, DenoiserFacts, TransformerFacts

# Of a denoiser whose configs do not tell its shape; twice what a double block of FLUX.1 has.
_OTHER_BLOCK, _OTHER_LAYER = 0.06, 0.03


def piece_share(architecture: Architecture | None, *, blocks: bool) -> float:
    """Of the largest piece, where a denoiser is offloaded block by block, or layer by layer."""
    if architecture is None:
        return _OTHER_BLOCK if blocks else _OTHER_LAYER
    facts = architecture.denoiser
    if isinstance(facts, TransformerFacts):
        sizes = [_widest(facts)]
    else:
        sizes = [*_resnets(facts), *_transformer_blocks(facts)]
    largest = max(block if blocks else layer for block, layer in sizes)
    return largest / denoiser_parameters(facts)


def denoiser_parameters(facts: DenoiserFacts | TransformerFacts) -> int:
    """All of them, but for biases, norms and embeddings."""
    if isinstance(facts, TransformerFacts):
        squares = facts.joint_blocks * facts.joint_squares + facts.dual_blocks * _DUAL_SQUARES
        return round((squares + facts.single_blocks * facts.single_squares) * facts.width**2)
    ends = 9 * facts.channels[0] * facts.latent_channels * 2
    samplers = sum(
        9 * channels * channels for channels in (*facts.channels[:-1], *facts.channels[1:])
    )
    projections = sum(
        2 * facts.channels[level] ** 2 * places for level, places, _ in _attentions(facts)
    )
    blocks = sum(block for block, _ in [*_resnets(facts), *_transformer_blocks(facts)])
    return ends + samplers + projections + blocks


# Of a block that attends to the picture a second time: 3 to modulate and 4 of attention more.
_DUAL_SQUARES = 7


def _widest(facts: TransformerFacts) -> tuple[int, int]:
    """Parameters of the largest piece where blocks come, and where layers do."""
    block = facts.joint_squares if facts.joint_blocks else facts.single_squares
    if facts.dual_blocks:
        block += _DUAL_SQUARES
    layer = facts.layer_squares
    return round(max(block, layer) * facts.width**2), round(layer * facts.width**2)


def _resnets(facts: DenoiserFacts) -> Iterator[tuple[int, int]]:
    """Parameters, and those of the largest layer, of each residual block."""
    embedding = 4 * facts.channels[0]

    def resnet(before: int, after: int) -> tuple[int, int]:
        shortcut = before * after if before != after else 0
        first, second = 9 * before * after, 9 * after * after
        return first + second + embedding * after + shortcut, max(first, second)

    present, skips = facts.channels[0], [facts.channels[0]]
    for level, channels in enumerate(facts.channels):
        for _ in range(facts.layers[level]):
            yield resnet(present, channels)
            present = channels
            skips.append(channels)
        if level < len(facts.channels) - 1:
            skips.append(channels)
    yield from [resnet(present, present)] * 2
    for level in reversed(range(len(facts.channels))):
        for _ in range(facts.layers[level] + 1):
            yield resnet(present + skips.pop(), facts.channels[level])
            present = facts.channels[level]


def _transformer_blocks(facts: DenoiserFacts) -> Iterator[tuple[int, int]]:
    """Likewise of each transformer block."""
    for level, places, layers in _attentions(facts):
        width = facts.channels[level]
        own, cross = 4 * width**2, 2 * width**2 + 2 * width * facts.cross_attention_width
        sizes = (own + cross + 12 * width**2, 8 * width**2)
        yield from [sizes] * (places * layers)


def _attentions(facts: DenoiserFacts) -> Iterator[tuple[int, int, int]]:
    """(level, how many attentions, transformer blocks in each), the middle one included."""
    for level, layers in enumerate(facts.transformer_layers):
        if layers:
            yield level, 2 * facts.layers[level] + 1, layers
    if facts.mid_transformer_layers:
        yield len(facts.channels) - 1, 1, facts.mid_transformer_layers
