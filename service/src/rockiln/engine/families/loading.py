"""Parts of a model from its files: local ones only, safetensors only, no weight made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import CLIPTokenizer, PreTrainedModel, Qwen2Tokenizer, T5TokenizerFast

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.quantisation import NONE
from rockiln.engine.families.conversion import (
    filled,
    read_converted,
    read_renamed,
    shipped_clip_tokenizer,
)
from rockiln.engine.quantisation import read_transformer, round_module
from rockiln.registry.checkpoint import CheckpointWeights, checkpoint_weights
from rockiln.registry.controlnet_file import ControlNetFile
from rockiln.registry.layouts import LAYOUTS
from rockiln.registry.transformer_file import COMPONENT
from rockiln.registry.transformer_names import FAMILIES
from rockiln.registry.weights import ComponentWeights, component_weights, transformer_component

Weights = ComponentWeights | CheckpointWeights


def model_weights(
    folder: Path, family: str, checkpoint: Path | None, quantisation: Mapping[str, str] = NONE
) -> Mapping[str, Weights]:
    """The weights of each component: of the folder itself, or of a file that has its shape.

    Args:
        checkpoint: a file with all of them, or a transformer's.
        quantisation: component → kind; what no file holds so is rounded at load.

    Raises:
        BrokenModelError: a component has none, or a file is not sound.
    """
    found: dict[str, Weights] = {}
    if checkpoint is None or family in FAMILIES:
        found.update(component_weights(folder, LAYOUTS[family]))
    else:
        found.update(checkpoint_weights(checkpoint, folder, family))
    if checkpoint is not None and family in FAMILIES:
        found[COMPONENT] = transformer_component(checkpoint, folder / COMPONENT, family)
    return {
        # A kind may also be that of a file which holds it so.
        name: replace(weights, rounded=name in quantisation and not _in_few_bits(weights))
        for name, weights in found.items()
    }


def _in_few_bits(weights: Weights) -> bool:
    """Whether its numbers are so as they come."""
    return isinstance(weights, ComponentWeights) and weights.quantised is not None


def load_module(kind: Any, weights: Weights | ControlNetFile, dtype: torch.dtype) -> Any:
    """An instance of ``kind`` with every weight from ``weights`` and none made up."""
    folder = weights.folder
    try:
        if isinstance(weights, CheckpointWeights):
            module, report = read_converted(kind, weights, dtype)
        elif isinstance(weights, ControlNetFile):
            module, report = read_renamed(kind, weights, dtype)
        elif weights.file is not None:
            module, report = read_transformer(kind, weights.file, folder, weights.family, dtype)
        else:
            module, report = _from_folder(kind, weights, dtype)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BrokenModelError(f"{folder.name}: {error}") from error
    # Both libraries fill such weights with random numbers and go on.
    absent = [*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])]
    if absent:
        raise BrokenModelError(
            f"{folder.name}: {len(absent)} weights are missing or of another shape, "
            f"such as {min(absent)}"
        )
    if weights.rounded:
        module = round_module(module)
    return module.eval().requires_grad_(requires_grad=False)


def _from_folder(kind: Any, weights: ComponentWeights, dtype: torch.dtype) -> Any:
    if issubclass(kind, PreTrainedModel):
        return kind.from_pretrained(
            weights.folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            variant=weights.variant,
            output_loading_info=True,
        )
    # diffusers' own way copies every shard but one, and looks at all names for each layer.
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for path in weights.files
        for name, tensor in load_file(path).items()
    }
    return filled(kind, kind.load_config(weights.folder, local_files_only=True), state)


def load_clip_tokenizer(folder: Path, text_encoder: Any) -> Any:
    """The tokenizer in ``folder``, which has to fit ``text_encoder``.

    Raises:
        BrokenModelError: unsound, or it knows more tokens or places than the text encoder.
    """
    tokenizer = shipped_clip_tokenizer(folder) or _load_tokenizer(CLIPTokenizer, folder)
    config = text_encoder.config
    window, positions = tokenizer.model_max_length, config.max_position_embeddings
    if window > positions or len(tokenizer) > config.vocab_size:
        raise BrokenModelError(
            f"{folder.name} (window {window}, {len(tokenizer)} tokens) does not fit the text "
            f"encoder ({positions} positions, {config.vocab_size} tokens)"
        )
    return tokenizer


def load_t5_tokenizer(folder: Path, text_encoder: Any) -> Any:
    """Likewise. T5 has no table of places; its window is the family's choice.

    Raises:
        BrokenModelError: unsound, or it knows more tokens than the text encoder.
    """
    return _fitting_tokenizer(T5TokenizerFast, folder, text_encoder)


def load_qwen_tokenizer(folder: Path, text_encoder: Any) -> Any:
    """Likewise. A chat template that comes with it is never run: the family writes its own.

    Raises:
        BrokenModelError: unsound, or it knows more tokens than the text encoder.
    """
    return _fitting_tokenizer(Qwen2Tokenizer, folder, text_encoder)


def _fitting_tokenizer(kind: Any, folder: Path, text_encoder: Any) -> Any:
    tokenizer = _load_tokenizer(kind, folder)
    if len(tokenizer) > text_encoder.config.vocab_size:
        raise BrokenModelError(
            f"{folder.name} ({len(tokenizer)} tokens) does not fit the text encoder "
            f"({text_encoder.config.vocab_size} tokens)"
        )
    return tokenizer


def _load_tokenizer(kind: Any, folder: Path) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenModelError(f"{folder.name}: {error}") from error


def check_transformer(
    transformer: Any, *, latent_channels: int, text_width: int, pooled_width: int
) -> None:
    """Raises BrokenModelError where a transformer does not fit what it is fed.

    Args:
        latent_channels: per position that it takes.
        text_width: numbers per token of text.
        pooled_width: numbers of a text as a whole.
    """
    config = transformer.config
    check_widths(
        (config.in_channels, latent_channels, "latent channels"),
        (config.joint_attention_dim, text_width, "numbers per token of text"),
        (config.pooled_projection_dim, pooled_width, "numbers of a text as a whole"),
    )


def check_widths(*widths: tuple[int, int, str]) -> None:
    """Likewise: what it takes, what the rest makes, and of what."""
    for reads, written, what in widths:
        if reads != written:
            raise BrokenModelError(f"transformer takes {reads} {what}, the rest makes {written}")


def check_unet(unet: Any, vae: Any, text_width: int) -> None:
    """Raises BrokenModelError where the parts are sound but do not fit together."""
    if unet.config.in_channels != vae.config.latent_channels:
        raise BrokenModelError(
            f"unet takes {unet.config.in_channels} channels, the vae makes "
            f"{vae.config.latent_channels}: an inpainting or other variant"
        )
    if unet.config.time_cond_proj_dim is not None:
        raise BrokenModelError("unet is guidance-distilled (time_cond_proj_dim); not run yet")
    if unet.config.cross_attention_dim != text_width:
        raise BrokenModelError(
            f"unet reads text of width {unet.config.cross_attention_dim}, the text encoder "
            f"writes {text_width}"
        )
