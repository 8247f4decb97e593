"""A CLIP tokenizer whose vocabulary is vista's world: each caption word is one token.

The byte-pair merges are learnt here, in plain Python and in a fixed order, until every word of
``phrases.vocabulary`` has become one piece. Any other text falls apart into smaller pieces and
bytes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

from training import phrases
from training.networks import TOKEN_COUNT

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
_PIECES = re.compile(r"[^\W\d_]+|\d|[^\s\w]+|_+")


@cache
def _byte_characters() -> tuple[str, ...]:
    """One printable character per byte, in the order and spelling of CLIP's vocabulary."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in shown}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + len(table) - len(shown))
    return tuple(table[byte] for byte in range(256))


def _spell(word: str) -> tuple[str, ...]:
    letters = [_byte_characters()[byte] for byte in word.encode()]
    return (*letters[:-1], letters[-1] + WORD_END)


def _merge(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    i = 0
    while i < len(pieces):
        if pieces[i : i + 2] == pair:
            merged.append(pieces[i] + pieces[i + 1])
            i += 2
        else:
            merged.append(pieces[i])
            i += 1
    return tuple(merged)


def learn_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Most frequent pair first, ties by spelling, until every word is one piece."""
    spelled = [_spell(word) for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for pieces in spelled for pair in pairwise(pieces))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_merge(pieces, best) for pieces in spelled]


@dataclass
class Tokenizer:
    """Encodes like transformers' CLIPTokenizer on the same files, at a fraction of its cost."""

    merges: list[tuple[str, str]]
    vocabulary: dict[str, int] = field(init=False)
    _known: dict[str, list[int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        characters = sorted(_byte_characters(), key=ord)
        entries = [*characters, *(c + WORD_END for c in characters)]
        entries += [a + b for a, b in self.merges]
        self.vocabulary = {entry: i for i, entry in enumerate([*entries, START, END])}
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}

    def __len__(self) -> int:
        return len(self.vocabulary)

    def _word(self, word: str) -> list[int]:
        if word not in self._known:
            pieces = _spell(word)
            while len(pieces) > 1:
                pairs = list(pairwise(pieces))
                best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
                if best not in self._ranks:
                    break
                pieces = _merge(pieces, best)
            self._known[word] = [self.vocabulary[piece] for piece in pieces]
        return self._known[word]

    def encode(self, text: str) -> list[int]:
        """``TOKEN_COUNT`` ids: start, text (cut if need be), end, padded with end."""
        ids = [i for word in _PIECES.findall(text.lower()) for i in self._word(word)]
        start, end = self.vocabulary[START], self.vocabulary[END]
        row = [start, *ids[: TOKEN_COUNT - 2]]
        return row + [end] * (TOKEN_COUNT - len(row))

    def save(self, folder: Path) -> None:
        """The files of a CLIPTokenizer."""
        folder.mkdir(parents=True, exist_ok=True)

        def write(name: str, content: object) -> None:
            text = json.dumps(content, ensure_ascii=False, indent=0 if name == "vocab.json" else 2)
            (folder / name).write_text(text + "\n", encoding="utf-8")

        write("vocab.json", self.vocabulary)
        lines = ["#version: 0.2", *(f"{a} {b}" for a, b in self.merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        special = {
            "bos_token": START,
            "eos_token": END,
            "pad_token": END,
            "unk_token": END,
        }
        write("special_tokens_map.json", special)
        config = {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": TOKEN_COUNT,
            "do_lower_case": True,
            "add_prefix_space": False,
            "errors": "replace",
            **special,
        }
        write("tokenizer_config.json", config)


@cache
def build_tokenizer() -> Tokenizer:
    return Tokenizer(learn_merges((*phrases.vocabulary(), *phrases.PUNCTUATION)))
