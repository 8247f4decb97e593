"""Write the model folder from averaged weights: ``python -m training.export_model ...``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from training import checkpoint, training_loop
from training.diffusion_loss import TextAid
from training.flat_adam import FlatAdam
from training.networks import build_scheduler, build_text_encoder, build_unet
from training.tokenizer import build_tokenizer
from training.train_unet import prepared_vae

DEFAULTS = {
    "width": 256,
    "height": 256,
    "num_inference_steps": 14,
    "guidance_scale": 2.5,
    "scheduler": "dpmpp_2m",
}
LIMITS = {"min_side_px": 128, "max_side_px": 1024}


def _add_text_prefix(path: Path) -> None:
    """SD 1.x names text weights ``text_model.…``; recent transformers leave the prefix out."""
    tensors = load_file(path)
    named = {
        key if key.startswith("text_model.") else f"text_model.{key}": value
        for key, value in tensors.items()
    }
    save_file(named, path, metadata={"format": "pt"})


_SCHEDULER_KEYS = (
    "_class_name", "algorithm_type", "beta_end", "beta_schedule", "beta_start", "clip_sample",
    "lower_order_final", "num_train_timesteps", "prediction_type", "set_alpha_to_one",
    "solver_order", "solver_type", "steps_offset", "timestep_spacing",
)  # fmt: skip


def _rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text())), indent=2) + "\n")


def _tidy(folder: Path) -> None:
    """Configs say what matters and nothing of this machine; every file is readable by all."""
    for path in folder.glob("*/config.json"):
        _rewrite(path, lambda c: {k: v for k, v in c.items() if k != "_name_or_path"})
    # Without it recent transformers run the text encoder in fp16 beside fp32 networks.
    _rewrite(
        folder / "text_encoder" / "config.json",
        lambda c: {**c, "dtype": "float32", "torch_dtype": "float32"},
    )
    # The defaults left out include -Infinity, which is not JSON.
    _rewrite(
        folder / "scheduler" / "scheduler_config.json",
        lambda c: {k: c[k] for k in _SCHEDULER_KEYS},
    )
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def export(unet_path: Path, vae_path: Path, folder: Path) -> None:
    """fp16 safetensors in the layout of Stable Diffusion 1.x, tokenizer and rockiln.json."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = build_tokenizer()
    unet, text = build_unet(), build_text_encoder(len(tokenizer))
    aid = TextAid(text.config.hidden_size)
    optimiser = FlatAdam([unet, text, aid], 0.0, 1.0, 0.0)
    tensors, _ = checkpoint.load(unet_path)
    if "optimiser.average" in tensors:
        optimiser.values.copy_(tensors["optimiser.average"])
    else:
        training_loop.start_from(unet_path, optimiser)
    scheduler = build_scheduler()
    # DDIM, made from the same config, must not clip latents.
    scheduler.register_to_config(clip_sample=False, steps_offset=1, set_alpha_to_one=False)
    tokenizer.save(folder / "tokenizer")
    unet.half().save_pretrained(folder / "unet")
    prepared_vae(vae_path, device).cpu().half().save_pretrained(folder / "vae")
    text.half().save_pretrained(folder / "text_encoder")
    _add_text_prefix(folder / "text_encoder" / "model.safetensors")
    scheduler.save_pretrained(folder / "scheduler")
    _tidy(folder)
    index = {
        "_class_name": StableDiffusionPipeline.__name__,
        "_diffusers_version": "0.30.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    card = {
        "schema": 1,
        "title": "vista: small drawn landscapes",
        "licence": "MIT",
        "defaults": DEFAULTS,
        "limits": LIMITS,
    }
    (folder / "rockiln.json").write_text(json.dumps(card, indent=2) + "\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unet", type=Path, required=True, help="checkpoint or averaged weights")
    parser.add_argument("--vae", type=Path, required=True, help="checkpoint or averaged weights")
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args(argv)
    export(a.unet, a.vae, a.out)
    total = sum(path.stat().st_size for path in a.out.rglob("*") if path.is_file())
    print(f"{a.out}: {total / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
