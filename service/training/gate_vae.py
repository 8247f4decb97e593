"""The gate before any UNet time: is the VAE good enough? ``python -m training.gate_vae ...``

On held-out drawn pictures: PSNR, the judge's reading of reconstructions, and the colours of houses
and boats by their pixels, each colour by itself. Exit status 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training import card, checkpoint, picture_sheet
from training.attributes import ATTRIBUTES
from training.flat_adam import FlatAdam
from training.judge import load_judge, read, scene_places
from training.networks import build_vae
from training.picture_pool import PicturePool, scene_batch
from training.pixel_tests import object_colours
from training.scene_batch import SceneBatch
from training.scenes import Colour
from training.training_loop import start_from
from training.vae_loss import encode_moments

LEAST_PSNR_DB = 30.0
LEAST_COLOUR = 0.97
_HELD_OUT_SEED = 9


def load_trained_vae(path: Path, device: torch.device) -> AutoencoderKL:
    """The averaged network of a training checkpoint or of a file of averaged weights."""
    vae = build_vae().to(device)
    optimiser = FlatAdam([vae], 0.0, 1.0, 0.0)
    tensors, _ = checkpoint.load(path)
    if "optimiser.average" in tensors:
        optimiser.values.copy_(tensors["optimiser.average"])
    else:
        start_from(path, optimiser)
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pictures: Tensor, batch: int = 32) -> Tensor:
    """[B,3,H,W] in 0..1 -> the same after encoding and decoding."""
    parts = []
    for part in torch.split(pictures, batch):
        mean, _ = encode_moments(vae, part * 2 - 1)
        parts.append((vae.decoder(vae.post_quant_conv(mean)) / 2 + 0.5).clamp(0, 1))
    return torch.cat(parts)


def psnr_db(a: Tensor, b: Tensor) -> float:
    """Mean over pictures of each picture's PSNR."""
    square = (a - b).square().flatten(1).mean(dim=1)
    return float((-10 * torch.log10(square + 1e-12)).mean())


def colour_report(scenes: SceneBatch, pictures: Tensor, judge_path: Path) -> dict[str, float]:
    """Shares of right colours, by the judge and by the pixels at the drawn object's place."""
    judge = load_judge(judge_path, pictures.device)
    classes, _ = read(judge, pictures)
    by_pixels = object_colours(pictures, scene_places(scenes), scenes.kind("time"))
    found: dict[str, float] = {}
    for name in ATTRIBUTES:
        wanted = scenes.kind(name)
        known = wanted >= 0
        found[f"judge {name}"] = float((classes[name] == wanted)[known].float().mean())
    for thing, guesses in by_pixels.items():
        wanted = scenes.kind(f"{thing}_colour").cpu()
        for index, colour in enumerate(Colour):
            these = wanted == index
            found[f"pixels {thing} {colour}"] = float((guesses[these] == index).float().mean())
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="checkpoint or averaged weights")
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--card", type=Path, help="model folder whose card gets the figures")
    parser.add_argument("--sheet", type=Path, help="originals over reconstructions, to look at")
    parser.add_argument("--pictures", type=int, default=768)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = parser.parse_args(argv)
    device = torch.device(a.device)
    vae = load_trained_vae(a.vae, device)
    scenes = scene_batch(_HELD_OUT_SEED, 0, a.pictures, device, a.workers)
    drawn = PicturePool.draw(scenes, 256, 256).pictures[:, :3].float() / 255
    again = reconstruct(vae, drawn)
    report = {"pictures": float(a.pictures), "psnr_db": psnr_db(drawn, again)}
    few = scenes.take(torch.arange(min(64, a.pictures), device=device))
    for high, wide in ((512, 512), (256, 384), (384, 256)):
        larger = PicturePool.draw(few, high, wide).pictures[:, :3].float() / 255
        report[f"psnr_db {high}x{wide}"] = psnr_db(larger, reconstruct(vae, larger, 8))
    report |= colour_report(scenes, again, a.judge)
    checked = [report["psnr_db"] >= LEAST_PSNR_DB]
    checked += [
        value >= LEAST_COLOUR
        for name, value in report.items()
        if name.startswith("pixels ") or name.endswith("_colour")
    ]
    a.report.parent.mkdir(parents=True, exist_ok=True)
    a.report.write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join(f"{name} {value:.4f}" for name, value in report.items()), flush=True)
    if a.card:
        card.store(a.card, "vae", report)
    if a.sheet:
        rows = [t for i in range(0, 24, 6) for t in (drawn[i : i + 6], again[i : i + 6])]
        picture_sheet.save_sheet(torch.cat(rows), a.sheet, 6)
    print("gate passed" if all(checked) else "gate FAILED", flush=True)
    sys.exit(0 if all(checked) else 1)


if __name__ == "__main__":
    main()
