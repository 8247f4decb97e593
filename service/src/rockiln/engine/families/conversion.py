"""Single-file checkpoints: tensors under the original names, by diffusers' own conversion.

Of a ControlNet each is one of diffusers', and the registry has the names.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import safetensors
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.modeling_utils import no_init_weights
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTokenizer, PreTrainedModel

from rockiln.registry.checkpoint import CONFIGS_FOLDER, CheckpointWeights
from rockiln.registry.checkpoint_names import is_open_clip
from rockiln.registry.controlnet_file import ControlNetFile
from rockiln.registry.json_file import read_json

_CONVERSIONS: dict[Any, Any] = {
    UNet2DConditionModel: convert_ldm_unet_checkpoint,
    AutoencoderKL: convert_ldm_vae_checkpoint,
}
_MERGES_FILE = CONFIGS_FOLDER / "clip_tokenizer" / "bpe_simple_vocab_16e6.txt.gz"
_MERGES_READ = slice(1, 48_895)  # of the lines in that file, as CLIP was trained with
_START, _END = "<|startoftext|>", "<|endoftext|>"


def read_converted(
    kind: Any, weights: CheckpointWeights, dtype: torch.dtype
) -> tuple[Any, dict[str, Any]]:
    """An instance of ``kind``, and which weights it lacks."""
    with safetensors.safe_open(weights.path, framework="pt") as file:
        original = {name: file.get_tensor(name) for name in weights.names}
    converted = {
        # What needs no conversion stays mapped from the file, as with folders.
        name: tensor.to(dtype).contiguous()
        for name, tensor in converted_weights(kind, weights, original).items()
    }
    if issubclass(kind, PreTrainedModel):
        config = kind.config_class.from_pretrained(weights.folder, local_files_only=True)
        module, report = kind.from_pretrained(
            None, config=config, state_dict=converted, dtype=dtype, output_loading_info=True
        )
        return module, report
    return filled(kind, kind.load_config(weights.folder, local_files_only=True), converted)


def read_renamed(
    kind: Any, weights: ControlNetFile, dtype: torch.dtype
) -> tuple[Any, dict[str, Any]]:
    """Likewise of a file in which each tensor is one of ``kind``."""
    with safetensors.safe_open(weights.path, framework="pt") as file:
        state = {
            name: file.get_tensor(given).to(dtype).contiguous()
            for given, name in weights.names.items()
        }
    return filled(kind, weights.config, state)


def filled(
    kind: Any, config: Mapping[str, Any], state: dict[str, torch.Tensor]
) -> tuple[Any, dict[str, Any]]:
    """An instance of one of diffusers' kinds around these tensors, and which ones it lacks."""
    with no_init_weights():  # its own memory is never touched
        module = kind.from_config(config)
    module._fix_state_dict_keys_on_load(state)  # noqa: SLF001 (names of old autoencoders)
    keys = module.load_state_dict(state, strict=False, assign=True)
    return module, {"missing_keys": keys.missing_keys, "mismatched_keys": ()}


def converted_weights(
    kind: Any, weights: CheckpointWeights, original: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The tensors of one component under the names that ``kind`` has for them."""
    converted: dict[str, torch.Tensor]
    if not issubclass(kind, PreTrainedModel):
        config = kind.load_config(weights.folder, local_files_only=True)
        converted = _CONVERSIONS[kind](original, config)
        return converted
    with torch.device("meta"):
        empty = kind(kind.config_class.from_pretrained(weights.folder, local_files_only=True))
    if is_open_clip(weights.prefix):
        converted = convert_open_clip_checkpoint(empty, original, prefix=weights.prefix)
    else:
        converted = convert_ldm_clip_checkpoint(original)
    # transformers had this part inside another one until 5.6.
    if not hasattr(empty, "text_model"):
        converted = {key.removeprefix("text_model."): each for key, each in converted.items()}
    return converted


def shipped_clip_tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer as a config of this package wants it; None for any other folder."""
    if not folder.is_relative_to(CONFIGS_FOLDER):
        return None
    vocabulary, merges = _clip_vocabulary()
    options = read_json(folder / "tokenizer_config.json")
    options.pop("tokenizer_class")
    return CLIPTokenizer(vocab=dict(vocabulary), merges=list(merges), **options)


@cache
def _clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Pieces of words with their ids, and which pieces are joined, most frequent first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 0x100 - len(printable)
    letters = [chr(code) for code in (*printable, *range(0x100, 0x100 + others))]
    lines = gzip.decompress(_MERGES_FILE.read_bytes()).decode().splitlines()[_MERGES_READ]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    joined = [first + second for first, second in merges]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *joined, _START, _END]
    return {piece: place for place, piece in enumerate(pieces)}, merges
