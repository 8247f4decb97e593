"""Text to tokens, and what of it a model does not read."""

from __future__ import annotations

from typing import Any

import torch

from rockiln.engine.families.interface import DroppedText


def token_ids(tokenizer: Any, text: str, window: int | None = None) -> torch.Tensor:
    """[1, window]: filled up, and cut where the text is longer.

    Args:
        window: tokens, start and end mark included; the tokenizer's own by default.
    """
    ids: torch.Tensor = tokenizer(
        text,
        padding="max_length",
        max_length=window or tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return ids


def past_window(tokenizer: Any, text: str, window: int | None = None) -> DroppedText | None:
    """The end of ``text`` that ``token_ids`` leaves out."""
    tokens = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    read = (window or tokenizer.model_max_length) - tokenizer.num_special_tokens_to_add()
    if len(tokens) <= read:
        return None
    rest = tokens[read:]
    return DroppedText(tokens=len(rest), window_tokens=read, text=tokenizer.decode(rest).strip())
