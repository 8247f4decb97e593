"""Textual inversions on a model while a job's texts are encoded, and off again.

The tokenizers know a character for each vector, from Unicode's private use area, and the text
encoders' tables of tokens have the vectors behind their own rows. Ids, and so pictures, are those
of diffusers' ``load_textual_inversion``, which has no way back that leaves other jobs alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from tokenizers import AddedToken
from torch import nn

from rockiln.domain.embeddings import replace_names
from rockiln.engine.families.interface import Components
from rockiln.registry.embeddings import read_embedding

_FIRST_CHARACTER = 0xE000


@dataclass(frozen=True)
class ReadTexts:
    """How the texts of one job are read.

    Attributes:
        components: whose tokenizers know what ``spelt`` gives.
        characters: name of a textual inversion → a character for each of its vectors.
    """

    components: Components
    characters: Mapping[str, str] = field(default_factory=dict)

    def spelt(self, text: str) -> str:
        """With the characters in place of the names."""
        return replace_names(text, self.characters, self.characters.__getitem__)

    def named(self, text: str) -> str:
        """And the names again."""
        for name, characters in self.characters.items():
            text = text.replace(characters, name)
        return text


@contextmanager
def embeddings_on(components: Components, files: Mapping[str, str]) -> Iterator[ReadTexts]:
    """The model with the textual inversions in ``files`` (name → path) on it.

    Raises:
        BrokenModelError: a file is unsound or made for another base.
    """
    if not files:
        yield ReadTexts(components)
        return
    encoders = {
        name: module
        for name, module in components.modules.items()
        if name.startswith("text_encoder")
    }
    widths = {name: each.get_input_embeddings().embedding_dim for name, each in encoders.items()}
    characters: dict[str, str] = {}
    vectors: dict[str, list[torch.Tensor]] = {name: [] for name in encoders}
    place = _FIRST_CHARACTER
    for name, path in files.items():
        found = read_embedding(Path(path))
        found.check_base(widths)
        characters[name] = "".join(map(chr, range(place, place + found.vectors)))
        place += found.vectors
        with safetensors.safe_open(path, framework="pt") as file:
            for encoder, tensor in found.tensors.items():
                vectors[encoder].append(file.get_tensor(tensor).reshape(found.vectors, -1))
    tokenizers = dict(components.tokenizers)
    with ExitStack() as stack:
        for encoder, parts in vectors.items():
            name = encoder.replace("text_encoder", "tokenizer")
            first_id = len(tokenizers[name])
            tokenizers[name] = _taught(tokenizers[name], "".join(characters.values()))
            table = encoders[encoder].get_input_embeddings()
            added = torch.cat(parts).to(table.weight.dtype)
            encoders[encoder].set_input_embeddings(_LongerTable(table, added, first_id))
            stack.callback(encoders[encoder].set_input_embeddings, table)
        yield ReadTexts(replace(components, tokenizers=tokenizers), characters)


def _taught(tokenizer: Any, characters: str) -> Any:
    """A copy that knows more tokens; they cannot be taken from one again."""
    taught = copy.deepcopy(tokenizer)
    taught.add_tokens([AddedToken(each, normalized=False) for each in characters])
    return taught


class _LongerTable(nn.Module):
    """A table of tokens and ``added`` rows [vectors, width] for the ids from ``first_id`` on."""

    def __init__(self, table: nn.Embedding, added: torch.Tensor, first_id: int) -> None:
        super().__init__()
        self.table = table
        self._added = added
        self._first_id = first_id

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        own = ids < self._first_id
        rows: torch.Tensor = self.table(ids.where(own, 0))
        rows[~own] = self._added.to(rows)[ids[~own] - self._first_id]
        return rows
