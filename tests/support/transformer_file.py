"""A tiny model's transformer in one file under its original names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors.torch import load_file, save_file

from rockiln.registry.json_file import read_json
from rockiln.registry.transformer_names import T5, transformer_tensors
from support.k_quants import K_KINDS, quantise_k

Array = npt.NDArray[np.generic]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def original_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The transformer of the model in ``folder`` under its original names."""
    weights = load_file(folder / "transformer" / WEIGHTS)
    config = read_json(folder / "transformer" / "config.json")
    found = {}
    for named in transformer_tensors(config, family_of(folder)):
        joined = torch.cat([weights[name] for name, _ in named.parts])
        if named.swapped:
            joined = torch.cat(joined.chunk(2)[::-1])
        found[named.original] = joined
    return found


def family_of(folder: Path) -> str:
    return "flux" if "Flux" in read_json(folder / "model_index.json")["_class_name"] else "sd3"


def write_safetensors(
    folder: Path,
    path: Path,
    dtype: torch.dtype = torch.float32,
    prefix: str = "",
    **changes: torch.Tensor | None,
) -> Path:
    """Likewise as a file. ``changes`` are tensors by name, None for one that is left out."""
    tensors: dict[str, Any] = {
        prefix + name: each.to(dtype) for name, each in original_tensors(folder).items()
    }
    tensors |= changes
    save_file({name: each for name, each in tensors.items() if each is not None}, path)
    path.chmod(0o644)
    return path


def write_scaled(
    folder: Path,
    path: Path,
    prefix: str = "",
    *,
    name: str = "scale_weight",
    mark: bool = True,
    **changes: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """Likewise with matrices in fp8 and a scale each, as for ComfyUI.

    Args:
        mark: one for all, as older files have it; else one of each layer.

    Returns:
        What the numbers in it stand for, under diffusers' names.
    """
    held: dict[str, Any] = {prefix + "scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
    meant = {}
    if not mark:
        held.clear()
    said = json_bytes({"format": "float8_e4m3fn", "full_precision_matrix_mult": True})
    for original, tensor in original_tensors(folder).items():
        held[prefix + original] = tensor
        if tensor.dim() == 2:
            scale = tensor.abs().max() / torch.finfo(torch.float8_e4m3fn).max
            rounded = (tensor / scale).to(torch.float8_e4m3fn)
            layer = prefix + original.removesuffix(".weight")
            held[prefix + original] = rounded
            held[f"{layer}.{name}"] = scale.clone()
            held[f"{layer}.{name.replace('weight', 'input')}"] = torch.ones(1)
            if not mark:
                held[f"{layer}.comfy_quant"] = said.clone()
            tensor = rounded.float() * scale  # noqa: PLW2901 (as a reader has it)
        meant[original] = tensor
    held |= changes
    save_file({name: each for name, each in held.items() if each is not None}, path)
    path.chmod(0o644)
    return diffusers_tensors(folder, meant)


def json_bytes(said: Any) -> torch.Tensor:
    return torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)


def diffusers_tensors(folder: Path, originals: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``original_tensors`` backwards."""
    config = read_json(folder / "transformer" / "config.json")
    found: dict[str, torch.Tensor] = {}
    for named in transformer_tensors(config, family_of(folder)):
        rows = originals[named.original]
        if named.swapped:
            rows = torch.cat(rows.chunk(2)[::-1])
        parts = torch.split(rows, [shape[0] for _, shape in named.parts])
        found |= {name: part.clone() for (name, _), part in zip(named.parts, parts, strict=True)}
    return found


def write_gguf(
    folder: Path, path: Path, kind: str = "Q8_0", *, change: Callable[[str], str | None] = str
) -> Path:
    """Likewise as a ``.gguf`` file, written by the gguf package.

    Args:
        kind: of every matrix that has whole blocks; the rest is F32.
        change: original name → another one; None leaves the tensor out.
    """
    named = {change(name): each for name, each in original_tensors(folder).items()}
    return _write(path, family_of(folder), named, kind)


def write_t5(folder: Path, path: Path, kind: str = "Q8_0", **changes: str | None) -> Path:
    """Likewise of the T5 in ``folder``. ``changes``: as ``write_gguf``'s, by original name."""
    weights = load_file(folder / "model.safetensors")
    named = {
        changes.get(each.original, each.original): weights[each.parts[0][0]]
        for each in transformer_tensors(read_json(folder / "config.json"), T5)
    }
    return _write(path, "t5encoder", named, kind)


def _write(
    path: Path, architecture: str, tensors: Mapping[str | None, torch.Tensor], kind: str
) -> Path:
    quantised = GGMLQuantizationType[kind]
    writer = GGUFWriter(path, architecture)
    for name, tensor in tensors.items():
        if name is None:
            continue
        numbers = tensor.float().numpy()
        block, _ = gguf.GGML_QUANT_SIZES[quantised]
        if tensor.dim() == 2 and tensor.shape[1] % block == 0:
            writer.add_tensor(name, quantise(numbers, quantised), raw_dtype=quantised)
        else:
            writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantise(numbers: Array, kind: GGMLQuantizationType) -> Array:
    """Blocks of that kind."""
    if kind in K_KINDS:
        return quantise_k(numbers, kind)
    found: Array = gguf.quants.quantize(numbers, kind)
    return found
