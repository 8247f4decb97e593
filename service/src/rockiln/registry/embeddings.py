"""Textual inversions: files of vectors for the text encoders, read from headers. No torch.

Three forms are known: kohya's and A1111's (``emb_params``), SDXL's (``clip_l`` and ``clip_g``), and
diffusers' (one tensor under the word that it was trained as).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.registry.addons import addon_files, find_addons
from rockiln.registry.file_gate import check_file
from rockiln.registry.loras import layers_of
from rockiln.registry.safetensors_file import read_weights_file

EMBEDDINGS_FOLDER = "embeddings"
VECTORS_MAX = 75  # what a window of CLIP has room for
_PAIR = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
_TOKENS = re.compile(r"(?:text_model\.)?embeddings\.token_embedding")


@dataclass(frozen=True)
class Embedding:
    """Attributes:
    tensors: text encoder → name in the file of its vectors [vectors, width] or [width].
    widths: text encoder → numbers of each vector.
    """

    path: Path
    tensors: Mapping[str, str]
    widths: Mapping[str, int]
    vectors: int

    def check_base(self, widths: Mapping[str, int]) -> None:
        """Raises BrokenModelError where a model's text encoders are not as wide as the vectors."""
        if self.widths != widths:
            raise BrokenModelError(
                f"{self.path.name} was made for another base: its vectors are "
                f"{_shown(self.widths)} wide, the model's text encoders {_shown(widths)}"
            )


def embedding_files(model_dirs: Iterable[Path]) -> dict[str, Path]:
    """Name → file, over the ``embeddings`` folders of the model directories; the first one wins."""
    return addon_files(model_dirs, EMBEDDINGS_FOLDER)


def find_embeddings(model_dirs: Iterable[Path], names: Collection[str]) -> dict[str, str]:
    """Name → path of those that a job names. Raises BrokenModelError if one is not there."""
    return find_addons(lambda: embedding_files(model_dirs), names, "textual inversion")


def read_embedding(path: Path) -> Embedding:
    """What a file has. Raises BrokenModelError if it is unsound or something else."""
    check_file(path, path.parent.parent)
    file = read_weights_file(path)
    if file.foreign_dtypes:
        raise BrokenModelError(f"{path.name} has vectors of {', '.join(file.foreign_dtypes)}")
    if set(file.shapes) == set(_PAIR):
        tensors = {encoder: name for name, encoder in _PAIR.items()}
    elif len(file.shapes) == 1:
        tensors = {"text_encoder": next(iter(file.shapes))}
    else:
        raise BrokenModelError(f"{path.name} is no textual inversion: {len(file.shapes)} tensors")
    shapes = [file.shapes[name] for name in tensors.values()]
    counts = {shape[0] if len(shape) > 1 else 1 for shape in shapes}
    if len(counts) > 1 or any(len(shape) not in {1, 2} or 0 in shape for shape in shapes):
        found = " and ".join(str(list(shape)) for shape in shapes)
        raise BrokenModelError(f"{path.name} is no textual inversion: it has {found}")
    (vectors,) = counts
    if vectors > VECTORS_MAX:
        raise BrokenModelError(f"{path.name} has {vectors} vectors, over {VECTORS_MAX}")
    widths = {encoder: file.shapes[name][-1] for encoder, name in tensors.items()}
    return Embedding(path, tensors, widths, vectors)


def text_widths(profile: ModelProfile) -> dict[str, int]:
    """Text encoder → numbers of a token, from the headers of a model's weights.

    Raises:
        BrokenModelError: a file is unsound.
    """
    return {
        component: shape[-1]
        for component, layers in layers_of(profile).items()
        for name, shape in layers.items()
        if component.startswith("text_encoder") and _TOKENS.fullmatch(name)
    }


def _shown(widths: Mapping[str, int]) -> str:
    return " and ".join(map(str, widths.values()))
