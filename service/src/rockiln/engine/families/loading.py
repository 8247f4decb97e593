"""Parts of a model from its folder: local files only, safetensors only, no weight made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import CLIPTokenizer

from rockiln.domain.errors import BrokenModelError
from rockiln.registry.weights import WeightsFile

# low_cpu_mem_usage needs a library that nothing else here does.
WEIGHTS_OPTIONS = {"low_cpu_mem_usage": False}


def load_module(kind: Any, weights: WeightsFile, **options: Any) -> Any:
    """An instance of ``kind`` with every weight from ``weights`` and none made up."""
    folder = weights.path.parent
    variant = "fp16" if weights.path.stem.endswith(".fp16") else None
    try:
        module, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            variant=variant,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BrokenModelError(f"{folder.name}: {error}") from error
    # Both libraries fill such weights with random numbers and go on.
    absent = [*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])]
    if absent:
        raise BrokenModelError(
            f"{folder.name}: {len(absent)} weights are missing or of another shape, "
            f"such as {min(absent)}"
        )
    return module.eval().requires_grad_(requires_grad=False)


def load_clip_tokenizer(folder: Path, text_encoder: Any) -> CLIPTokenizer:
    """The tokenizer in ``folder``, which has to fit ``text_encoder``.

    Raises:
        BrokenModelError: unsound, or it knows more tokens or places than the text encoder.
    """
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenModelError(f"{folder.name}: {error}") from error
    config = text_encoder.config
    window, positions = tokenizer.model_max_length, config.max_position_embeddings
    if window > positions or len(tokenizer) > config.vocab_size:
        raise BrokenModelError(
            f"{folder.name} (window {window}, {len(tokenizer)} tokens) does not fit the text "
            f"encoder ({positions} positions, {config.vocab_size} tokens)"
        )
    return tokenizer


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
