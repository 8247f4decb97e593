"""A tiny model's transformer as a ``.gguf`` file, written by the gguf package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors.torch import load_file

from rockiln.registry.json_file import read_json
from rockiln.registry.transformer_names import transformer_tensors

Array = npt.NDArray[np.generic]
WEIGHTS = "diffusion_pytorch_model.safetensors"
_BLOCK = 32


def write_gguf(
    folder: Path, path: Path, kind: str = "Q8_0", *, change: Callable[[str], str | None] = str
) -> Path:
    """The transformer of the model in ``folder`` under its original names.

    Args:
        kind: of every matrix that has whole blocks; the rest is F32.
        change: original name → another one; None leaves the tensor out.
    """
    family = "flux" if "Flux" in read_json(folder / "model_index.json")["_class_name"] else "sd3"
    weights = load_file(folder / "transformer" / WEIGHTS)
    quantised = GGMLQuantizationType[kind]
    writer = GGUFWriter(path, family)
    for named in transformer_tensors(read_json(folder / "transformer" / "config.json"), family):
        joined = torch.cat([weights[name] for name, _ in named.parts])
        if named.swapped:
            joined = torch.cat(joined.chunk(2)[::-1])
        name = change(named.original)
        if name is None:
            continue
        numbers = joined.float().numpy()
        block, _ = gguf.GGML_QUANT_SIZES[quantised]
        if joined.dim() == 2 and joined.shape[1] % block == 0:
            writer.add_tensor(name, quantise(numbers, quantised), raw_dtype=quantised)
        else:
            writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantise(numbers: Array, kind: GGMLQuantizationType) -> Array:
    """Blocks of that kind; of kinds that the package does not write, random ones."""
    try:
        found: Array = gguf.quants.quantize(numbers, kind)
    except NotImplementedError:
        found = random_blocks(numbers.shape, kind)
    return found


def random_blocks(shape: tuple[int, ...], kind: GGMLQuantizationType) -> Array:
    """[rows, bytes] whose scales are small finite halves."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    source = np.random.default_rng(shape[0])
    found = source.integers(0, 256, (shape[0] * shape[1] // block, size), dtype=np.uint8)
    # The scales of a block are halves of which the file's layout says only to ggml where they are:
    # every half whose exponent is large is made small.
    halves = found[:, : size // 2 * 2].reshape(len(found), -1, 2)
    halves[..., 1] &= 0x87
    return found.reshape(shape[0], -1)
