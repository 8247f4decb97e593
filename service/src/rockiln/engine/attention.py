"""Attention whose scores are never in memory as a whole, for devices without a fused kernel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from rockiln.domain.memory import SLICE_SCORES_BYTES

# torch's plain attention keeps scores in float32, before and after softmax.
_SCORE_BYTES = 8


class SlicedAttention:
    """diffusers' ``AttnProcessor2_0`` with the queries in slices.

    Each query's sum runs over all keys as before; only how many queries a kernel sees changes.

    Args:
        slice_bytes: bound of the scores of one slice.
    """

    def __init__(self, slice_bytes: int = SLICE_SCORES_BYTES) -> None:
        self._slice_bytes = slice_bytes

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,  # noqa: ARG002 (likewise; only spatial norms use it)
    ) -> torch.Tensor:
        if attention_mask is not None or attn.spatial_norm is not None:
            raise NotImplementedError("sliced attention takes no mask and no spatial norm")
        residual, shape = hidden_states, hidden_states.shape
        if hidden_states.ndim == 4:  # noqa: PLR2004 (a picture's tensor)
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            source = attn.norm_encoder_hidden_states(source)
        query, key, value = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projected in (attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source))
        )
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        hidden_states = self._attend(query, key, value).transpose(1, 2).flatten(2)
        hidden_states = attn.to_out[1](attn.to_out[0](hidden_states))
        if len(shape) == 4:  # noqa: PLR2004 (likewise)
            hidden_states = hidden_states.transpose(-1, -2).reshape(shape)
        if attn.residual_connection:
            hidden_states = hidden_states + residual
        rescaled: torch.Tensor = hidden_states / attn.rescale_output_factor
        return rescaled

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        row_bytes = math.prod(query.shape[:2]) * key.shape[2] * _SCORE_BYTES
        rows = max(1, self._slice_bytes // row_bytes)
        if rows >= query.shape[2]:
            return scaled_dot_product_attention(query, key, value)
        out = torch.empty_like(query)
        for begin in range(0, query.shape[2], rows):
            part = slice(begin, begin + rows)
            out[:, :, part] = scaled_dot_product_attention(query[:, :, part], key, value)
        return out
