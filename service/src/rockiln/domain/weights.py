"""Which share of a denoiser's weights its largest block and its largest layer hold. Pure."""

from __future__ import annotations

from rockiln.domain.model import Architecture, DenoiserFacts


def largest_block_share(architecture: Architecture) -> float:
    """Of the weights on the device at once when a denoiser is offloaded block by block."""
    blocks = _blocks(architecture.denoiser)
    # The middle block and the ends stay for the whole forward: they are in no list of blocks.
    return (blocks["mid"] + max(size for name, size in blocks.items() if name != "mid")) / sum(
        blocks.values()
    )


def largest_layer_share(architecture: Architecture) -> float:
    """Of the weights on the device at once when a denoiser is offloaded layer by layer."""
    facts = architecture.denoiser
    widest = max(facts.channels)
    convolution = 9 * 2 * widest * widest
    feed_forward = 8 * widest * widest if any(facts.transformer_layers) else 0
    return max(convolution, feed_forward) / sum(_blocks(facts).values())


def _blocks(facts: DenoiserFacts) -> dict[str, int]:
    """Parameters per block, biases and norms left out."""
    embedding = 4 * facts.channels[0]
    sizes = {}
    skips = [facts.channels[0]]
    present = facts.channels[0]
    last = len(facts.channels) - 1

    def resnet(before: int, after: int) -> int:
        shortcut = before * after if before != after else 0
        return 9 * before * after + 9 * after * after + embedding * after + shortcut

    def attention(level: int, layers: int) -> int:
        width = facts.channels[level]
        if not layers:
            return 0
        one = 4 * width**2 + 2 * width**2 + 2 * width * facts.cross_attention_width
        return 2 * width**2 + layers * (one + 12 * width**2)

    for level, channels in enumerate(facts.channels):
        size = 0
        for _ in range(facts.layers[level]):
            size += resnet(present, channels) + attention(level, facts.transformer_layers[level])
            present = channels
            skips.append(channels)
        if level < last:
            size += 9 * channels * channels
            skips.append(channels)
        sizes[f"down{level}"] = size
    sizes["mid"] = 2 * resnet(present, present) + attention(last, facts.mid_transformer_layers)
    for level in reversed(range(len(facts.channels))):
        size, channels = 0, facts.channels[level]
        for _ in range(facts.layers[level] + 1):
            size += resnet(present + skips.pop(), channels) + attention(
                level, facts.transformer_layers[level]
            )
            present = channels
        if level:
            size += 9 * channels * channels
        sizes[f"up{level}"] = size
    return sizes
