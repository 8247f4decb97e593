"""Prompts in A1111's syntax, of any length: (word), (word:1.2), [word], BREAK.

The text is cut into chunks of as many tokens as the encoder reads; each is encoded by itself and
they are laid end to end. A weight multiplies its tokens' numbers, and the chunk's mean is put back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

_ROUND, _SQUARE = 1.1, 1 / 1.1
_PIECES = re.compile(
    r"""
    \\[()\[\]\\]                    # an escaped bracket
    | \\ | \( | \[ | \] | \)
    | :\s*(?P<weight>[+-]?\d*\.?\d+)\s*\)
    | \bBREAK\b
    | [^\\()\[\]:B]+ | :| B
    """,
    re.VERBOSE,
)
BREAK = "BREAK"
_END = (BREAK, -1.0)
_OPENING = frozenset("([")
_CLOSING = {")": ("(", _ROUND), "]": ("[", _SQUARE)}


@dataclass(frozen=True)
class Part:
    """Text and its weight; ``text`` BREAK with weight -1 ends a chunk."""

    text: str
    weight: float

    @property
    def ends_chunk(self) -> bool:
        return (self.text, self.weight) == _END


class _Reader:
    """Parts so far, and where each bracket that is open began."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, float]] = []
        self._open: dict[str, list[int]] = {"(": [], "[": []}

    def opens(self, bracket: str) -> None:
        self._open[bracket].append(len(self.parts))

    def closes(self, bracket: str, factor: float) -> bool:
        """Whether there was one to close."""
        if not self._open[bracket]:
            return False
        start = self._open[bracket].pop()
        self.parts[start:] = [
            part if part == _END else (part[0], part[1] * factor) for part in self.parts[start:]
        ]
        return True

    def close_all(self) -> None:
        for bracket, factor in (("(", _ROUND), ("[", _SQUARE)):
            while self.closes(bracket, factor):
                pass


def parts_of(prompt: str) -> list[Part]:
    """The prompt's parts, brackets resolved; one that is never closed counts to the end."""
    reader = _Reader()
    for match in _PIECES.finditer(prompt):
        piece, weight = match[0], match["weight"]
        closing = _CLOSING.get(piece) if weight is None else ("(", float(weight))
        if piece in _OPENING:
            reader.opens(piece)
        elif closing is not None and reader.closes(*closing):
            continue
        elif piece == BREAK:
            reader.parts.append(_END)
        else:
            text = piece[1:] if piece.startswith("\\") and len(piece) > 1 else piece
            reader.parts.append((text, 1.0))
    reader.close_all()
    return list(_joined(reader.parts))


def _joined(parts: list[tuple[str, float]]) -> Iterator[Part]:
    """Neighbours of one weight as one part, so that words stay whole."""
    text, weight = "", 1.0
    for next_text, next_weight in parts:
        if (next_text, next_weight) == _END or next_weight != weight:
            if text:
                yield Part(text, weight)
            text = ""
        if (next_text, next_weight) == _END:
            yield Part(*_END)
            weight = 1.0
            continue
        text, weight = text + next_text, next_weight
    if text:
        yield Part(text, weight)


@dataclass
class Chunk:
    """Tokens of one forward of the text encoder, without marks, and their weights."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def chunks_of(tokenizer: Any, prompt: str, *, at_least: int = 1) -> list[Chunk]:
    """The prompt in chunks of the tokenizer's window, marks not counted."""
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    chunks = [Chunk()]
    for part in parts_of(prompt):
        if part.ends_chunk:
            chunks.append(Chunk())
            continue
        for token in tokenizer(part.text, add_special_tokens=False, verbose=False).input_ids:
            if len(chunks[-1].ids) == room:
                chunks.append(Chunk())
            chunks[-1].ids.append(token)
            chunks[-1].weights.append(part.weight)
    while len(chunks) < at_least:
        chunks.append(Chunk())
    return chunks


def chunk_ids(tokenizer: Any, chunk: Chunk) -> torch.Tensor:
    """[1, window], marked and filled up as the tokenizer does it."""
    ids = [tokenizer.bos_token_id, *chunk.ids, tokenizer.eos_token_id]
    fill = tokenizer.model_max_length - len(ids)
    return torch.tensor([[*ids, *[tokenizer.pad_token_id] * fill]])


def weighted(hidden: torch.Tensor, chunk: Chunk) -> torch.Tensor:
    """[1, window, width] with each token's weight on it, and the mean it had."""
    if all(weight == 1.0 for weight in chunk.weights):
        return hidden
    window = hidden.shape[1]
    weights = [1.0, *chunk.weights]
    weights += [1.0] * (window - len(weights))
    scaled = hidden * torch.tensor(weights).to(hidden)[None, :, None]
    return scaled * (hidden.float().mean() / scaled.float().mean()).to(hidden)
