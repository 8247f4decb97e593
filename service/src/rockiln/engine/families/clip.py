"""Text through CLIP encoders: plain or weighted, from the usual layer or one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rockiln.engine.families.interface import Components, DroppedText, PromptText
from rockiln.engine.families.text import past_window, token_ids
from rockiln.engine.families.weighted_text import Chunk, chunk_ids, chunks_of, weighted

USUAL_LAYER = -2


@dataclass(frozen=True)
class ClipText:
    """Attributes:
    tokens: [1, windows, width], of both encoders side by side where there are two.
    pooled: the text as a whole, of each encoder that gives it, from the first window.
    """

    tokens: torch.Tensor
    pooled: list[torch.Tensor]


def encode_pair(components: Components, prompt: PromptText) -> ClipText:
    """Through two encoders, from the layer before the last, without its norm."""

    def layer(output: Any, _: Any) -> torch.Tensor:
        hidden: torch.Tensor = output.hidden_states[USUAL_LAYER + 1 - prompt.clip_skip]
        return hidden

    parts = [_encode(components, prompt, number, layer) for number in ("", "_2")]
    return ClipText(
        torch.cat([part.tokens for part in parts], dim=-1),
        [pooled for part in parts for pooled in part.pooled],
    )


def encode_single(components: Components, prompt: PromptText) -> torch.Tensor:
    """Through one encoder, from its last layer with its norm."""

    def layer(output: Any, encoder: Any) -> torch.Tensor:
        if prompt.clip_skip == 1:
            last: torch.Tensor = output.last_hidden_state
            return last
        inner = getattr(encoder, "text_model", encoder)
        normed: torch.Tensor = inner.final_layer_norm(output.hidden_states[-prompt.clip_skip])
        return normed

    return _encode(components, prompt, "", layer).tokens


def _encode(components: Components, prompt: PromptText, number: str, layer: Any) -> ClipText:
    tokenizer = components.tokenizers[f"tokenizer{number}"]
    encoder = components.modules[f"text_encoder{number}"]
    tokens, pooled = [], []
    for ids, chunk in _windows(tokenizer, prompt):
        output = encoder(ids.to(components.device), attention_mask=None, output_hidden_states=True)
        hidden = layer(output, encoder)
        tokens.append(hidden if chunk is None else weighted(hidden, chunk))
        pooled.append(getattr(output, "text_embeds", None))
    return ClipText(torch.cat(tokens, dim=1), [each for each in pooled[:1] if each is not None])


def _windows(tokenizer: Any, prompt: PromptText) -> Sequence[tuple[torch.Tensor, Chunk | None]]:
    if prompt.syntax == "plain":
        return [(token_ids(tokenizer, prompt.text), None)]
    paired = len(chunks_of(tokenizer, prompt.paired_with))
    chunks = chunks_of(tokenizer, prompt.text, at_least=paired)
    return [(chunk_ids(tokenizer, chunk), chunk) for chunk in chunks]


def dropped_text(components: Components, text: str) -> DroppedText | None:
    """What of a plain text lies past the tokenizer's window."""
    return past_window(components.tokenizers["tokenizer"], text)
