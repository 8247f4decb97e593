"""Text through Qwen's language models, in the form of a chat that they were trained on.

The form is written out here: a model folder's own chat template is a program and is never run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen3Model

from rockiln.engine.families.interface import Components, DroppedText
from rockiln.engine.families.loading import Weights, load_module
from rockiln.engine.families.text import past_window


@dataclass(frozen=True)
class Chat:
    """What stands around a prompt, and how much of it all is read.

    Attributes:
        window_tokens: of all, what stands around included.
        skipped_tokens: at the beginning, whose numbers are left out of what the network is told.
    """

    before: str
    after: str
    window_tokens: int
    skipped_tokens: int = 0

    def read(self, components: Components, text: str, *, filled: bool) -> Any:
        """``input_ids`` and ``attention_mask``, [1, tokens]; ``filled`` up to the window."""
        tokenizer = components.tokenizers["tokenizer"]
        return tokenizer(
            self.before + text + self.after,
            padding="max_length" if filled else False,
            max_length=self.window_tokens,
            truncation=True,
            return_tensors="pt",
        ).to(components.device)

    def dropped_text(self, components: Components, text: str) -> DroppedText | None:
        """What of a text lies past the window."""
        tokenizer = components.tokenizers["tokenizer"]
        return past_window(tokenizer, text, self.window_tokens - len(tokenizer(self.before)[0]))


USER = "<|im_start|>user\n"
ANSWER = "<|im_end|>\n<|im_start|>assistant\n"


def load_qwen3(weights: Weights, dtype: torch.dtype) -> Any:
    """The language model without its head for words, which no picture needs."""
    return load_module(Qwen3Model, weights, dtype)


def fill_up(tokens: torch.Tensor, window: int) -> dict[str, torch.Tensor]:
    """[1, tokens, width] → ``prompt_embeds`` [1, window, width], and ``tokens`` [1], how many.

    So that prompts of any length share a batch.
    """
    missing = window - tokens.shape[1]
    return {
        "prompt_embeds": torch.nn.functional.pad(tokens, (0, 0, 0, missing)),
        "tokens": torch.full([1], tokens.shape[1], device=tokens.device),
    }
