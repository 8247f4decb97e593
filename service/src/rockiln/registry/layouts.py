"""What a family's folder is made of, by the pipeline that its index names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from rockiln.domain.model import Feature
from rockiln.domain.sampling import DIFFUSION_SCHEDULERS, FLOW_SCHEDULERS

Kind = TypeVar("Kind")
Weighted = tuple[str, str, str]
Plain = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class FamilyLayout:
    """One family.

    Attributes:
        name: key of ``engine.families``.
        weighted: component → (library, class, stem of its weights file).
        plain: components without weights → (library, accepted classes).
        schedulers: names in a request that its networks can be sampled with.
        features: what else a request may ask of them.
        optional: components that a folder may leave out.
        side_grid_px: sides are multiples of it: an eighth, or patches of two eighths.
        half: the half precision that its networks were made for; in the other they overflow.
        left_out: component → tensors of its files, by a pattern, that no picture needs.
    """

    name: str
    weighted: dict[str, Weighted]
    plain: dict[str, Plain]
    schedulers: tuple[str, ...] = DIFFUSION_SCHEDULERS
    features: tuple[Feature, ...] = (
        "image", "mask", "hires", "loras", "clip_skip", "weighted_prompt", "embeddings",
        "controlnets",
    )  # fmt: skip
    optional: frozenset[str] = frozenset()
    side_grid_px: int = 8
    half: Literal["float16", "bfloat16"] = "float16"
    left_out: Mapping[str, str] = field(default_factory=dict)

    def weighted_in(self, folder: Path) -> dict[str, Weighted]:
        """Without the optional ones that ``folder`` leaves out."""
        return self._present(folder, self.weighted)

    def plain_in(self, folder: Path) -> dict[str, Plain]:
        """Likewise."""
        return self._present(folder, self.plain)

    def _present(self, folder: Path, parts: dict[str, Kind]) -> dict[str, Kind]:
        return {
            name: part
            for name, part in parts.items()
            if name not in self.optional or (folder / name).is_dir()
        }


_FLOW_FEATURES: tuple[Feature, ...] = ("image", "mask", "hires", "loras")
_STEM = "diffusion_pytorch_model"
_CLIP: Weighted = ("transformers", "CLIPTextModel", "model")
_CLIP_PROJECTED: Weighted = ("transformers", "CLIPTextModelWithProjection", "model")
_T5: Weighted = ("transformers", "T5EncoderModel", "model")
_UNET: Weighted = ("diffusers", "UNet2DConditionModel", _STEM)
_VAE: Weighted = ("diffusers", "AutoencoderKL", _STEM)
_CLIP_TOKENIZER: Plain = ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast"))
_QWEN_TOKENIZER: Plain = ("transformers", ("Qwen2Tokenizer", "Qwen2TokenizerFast"))
_T5_TOKENIZER: Plain = ("transformers", ("T5TokenizerFast", "T5Tokenizer"))

_WORD_HEAD = r"lm_head\..+"

FAMILY_BY_PIPELINE: dict[str, FamilyLayout] = {
    "StableDiffusionPipeline": FamilyLayout(
        name="sd1",
        weighted={"text_encoder": _CLIP, "unet": _UNET, "vae": _VAE},
        plain={"tokenizer": _CLIP_TOKENIZER},
    ),
    "StableDiffusionXLPipeline": FamilyLayout(
        name="sdxl",
        weighted={
            "text_encoder": _CLIP,
            "text_encoder_2": _CLIP_PROJECTED,
            "unet": _UNET,
            "vae": _VAE,
        },
        plain={"tokenizer": _CLIP_TOKENIZER, "tokenizer_2": _CLIP_TOKENIZER},
    ),
    "StableDiffusion3Pipeline": FamilyLayout(
        name="sd3",
        weighted={
            "text_encoder": _CLIP_PROJECTED,
            "text_encoder_2": _CLIP_PROJECTED,
            "text_encoder_3": _T5,
            "transformer": ("diffusers", "SD3Transformer2DModel", _STEM),
            "vae": _VAE,
        },
        plain={
            "tokenizer": _CLIP_TOKENIZER,
            "tokenizer_2": _CLIP_TOKENIZER,
            "tokenizer_3": _T5_TOKENIZER,
        },
        schedulers=FLOW_SCHEDULERS,
        features=_FLOW_FEATURES,
        optional=frozenset({"text_encoder_3", "tokenizer_3"}),
        side_grid_px=16,
    ),
    "FluxPipeline": FamilyLayout(
        name="flux",
        weighted={
            "text_encoder": _CLIP,
            "text_encoder_2": _T5,
            "transformer": ("diffusers", "FluxTransformer2DModel", _STEM),
            "vae": _VAE,
        },
        plain={"tokenizer": _CLIP_TOKENIZER, "tokenizer_2": _T5_TOKENIZER},
        schedulers=FLOW_SCHEDULERS,
        features=_FLOW_FEATURES,
        side_grid_px=16,
    ),
    "Flux2KleinPipeline": FamilyLayout(
        name="flux2",
        weighted={
            "text_encoder": ("transformers", "Qwen3ForCausalLM", "model"),
            "transformer": ("diffusers", "Flux2Transformer2DModel", _STEM),
            "vae": ("diffusers", "AutoencoderKLFlux2", _STEM),
        },
        plain={"tokenizer": _QWEN_TOKENIZER},
        schedulers=FLOW_SCHEDULERS,
        features=_FLOW_FEATURES,
        side_grid_px=16,
        half="bfloat16",
        left_out={"text_encoder": _WORD_HEAD},
    ),
    "ZImagePipeline": FamilyLayout(
        name="z_image",
        weighted={
            "text_encoder": ("transformers", "Qwen3Model", "model"),
            "transformer": ("diffusers", "ZImageTransformer2DModel", _STEM),
            "vae": _VAE,
        },
        plain={"tokenizer": _QWEN_TOKENIZER},
        schedulers=FLOW_SCHEDULERS,
        features=_FLOW_FEATURES,
        side_grid_px=16,
        half="bfloat16",
        left_out={"text_encoder": _WORD_HEAD},
    ),
    "QwenImagePipeline": FamilyLayout(
        name="qwen_image",
        weighted={
            "text_encoder": ("transformers", "Qwen2_5_VLForConditionalGeneration", "model"),
            "transformer": ("diffusers", "QwenImageTransformer2DModel", _STEM),
            "vae": ("diffusers", "AutoencoderKLQwenImage", _STEM),
        },
        plain={"tokenizer": _QWEN_TOKENIZER},
        schedulers=FLOW_SCHEDULERS,
        features=_FLOW_FEATURES,
        side_grid_px=16,
        half="bfloat16",
        left_out={"text_encoder": rf"{_WORD_HEAD}|(model\.)?visual\..+"},
    ),
}
LAYOUTS: dict[str, FamilyLayout] = {layout.name: layout for layout in FAMILY_BY_PIPELINE.values()}
