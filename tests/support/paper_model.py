"""A model folder with everything the registry reads and not one weight: enough for the front."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rockiln.domain.model import ModelDefaults, ModelProfile

PAPER = ModelProfile(
    id="paper",
    title="A model on paper",
    family="sd1",
    licence="MIT",
    path="/nowhere",
    defaults=ModelDefaults(
        width=64, height=64, num_inference_steps=4, guidance_scale=4.0, scheduler="euler"
    ),
    min_side_px=64,
    max_side_px=512,
    component_bytes={"unet": 10},
    component_parameters={"unet": 0},
    features=(
        "image",
        "mask",
        "hires",
        "loras",
        "clip_skip",
        "weighted_prompt",
        "embeddings",
        "controlnets",
    ),
)

UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "in_channels": 4,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
_WEIGHTS = {
    "text_encoder": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
_NO_TENSORS = (2).to_bytes(8, "little") + b"{}"


def write_paper_model(folder: Path) -> None:
    """Writes the model; its id is the folder's name."""
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(_INDEX))
    for component, stem in _WEIGHTS.items():
        (folder / component).mkdir()
        config = UNET if component == "unet" else {}
        (folder / component / "config.json").write_text(json.dumps(config))
        (folder / component / f"{stem}.safetensors").write_bytes(_NO_TENSORS)
    for component, name in (("scheduler", "scheduler_config.json"), ("tokenizer", "vocab.json")):
        (folder / component).mkdir()
        (folder / component / name).write_text("{}")
    defaults = PAPER.defaults
    manifest = {
        "schema": 1,
        "title": PAPER.title,
        "licence": PAPER.licence,
        "defaults": {
            "width": defaults.width,
            "height": defaults.height,
            "num_inference_steps": defaults.num_inference_steps,
            "guidance_scale": defaults.guidance_scale,
            "scheduler": defaults.scheduler,
        },
        "limits": {"min_side_px": PAPER.min_side_px, "max_side_px": PAPER.max_side_px},
    }
    (folder / "rockiln.json").write_text(json.dumps(manifest))
