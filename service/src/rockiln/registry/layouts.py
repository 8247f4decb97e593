"""What a family's folder is made of, by the pipeline that its index names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

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


_STEM = "diffusion_pytorch_model"
_CLIP: Weighted = ("transformers", "CLIPTextModel", "model")
_CLIP_PROJECTED: Weighted = ("transformers", "CLIPTextModelWithProjection", "model")
_T5: Weighted = ("transformers", "T5EncoderModel", "model")
_UNET: Weighted = ("diffusers", "UNet2DConditionModel", _STEM)
_VAE: Weighted = ("diffusers", "AutoencoderKL", _STEM)
_CLIP_TOKENIZER: Plain = ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast"))
_T5_TOKENIZER: Plain = ("transformers", ("T5TokenizerFast", "T5Tokenizer"))

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
        features=("image", "hires", "loras"),
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
        features=("image", "hires", "loras"),
        side_grid_px=16,
    ),
}
LAYOUTS: dict[str, FamilyLayout] = {layout.name: layout for layout in FAMILY_BY_PIPELINE.values()}
