"""What every family with a CLIP tokenizer does with a text."""

from __future__ import annotations

from typing import Any

import torch

from rockiln.engine.families.interface import Components, DroppedText


def token_ids(tokenizer: Any, text: str) -> torch.Tensor:
    """[1, window]: filled up, and cut where the text is longer."""
    ids: torch.Tensor = tokenizer(
        text,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return ids


def dropped_text(components: Components, text: str) -> DroppedText | None:
    """The end of ``text`` that the window of tokens (start and end mark included) leaves out."""
    tokenizer = components.tokenizers["tokenizer"]
    tokens = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    window = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    if len(tokens) <= window:
        return None
    rest = tokens[window:]
    return DroppedText(tokens=len(rest), window_tokens=window, text=tokenizer.decode(rest).strip())
