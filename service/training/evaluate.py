"""Does the picture show what the prompt says? ``python -m training.evaluate --judge FILE``

Held-out prompts at the model's default settings, read by the judge (trained on drawn pictures only)
and, for colours, by pixel tests where the object stands. Writes evaluation.json and the table in
the model card.
"""

from __future__ import annotations

import argparse
import platform
import random
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor

from training import card, picture_sheet
from training.attributes import ATTRIBUTES, labels
from training.captions import Caption, describe
from training.judge import PLACES, Judge, load_judge, read
from training.pixel_tests import object_colours
from training.sampling import default_settings, generate, load_pipeline
from training.scenes import scene_at

HELD_OUT_SEED = 20_011
OTHER_SIZES = ((512, 512), (256, 384), (384, 256), (512, 768))


def held_out_prompts(count: int) -> list[Caption]:
    """Captions of scenes from a stream that no training command uses."""
    return [
        describe(scene_at(HELD_OUT_SEED, i), random.Random(HELD_OUT_SEED * 1_000_003 + i))
        for i in range(count)
    ]


def score(judge: Judge, pictures: Tensor, captions: list[Caption]) -> dict[str, dict[str, float]]:
    """Per attribute that captions name: how many name it, and which share of those pictures shows
    it.
    """
    said = torch.tensor([labels(caption.said) for caption in captions])
    classes, places = read(judge, pictures)
    by_pixels = object_colours(pictures, places.cpu(), classes["time"].cpu())
    found: dict[str, dict[str, float]] = {}
    for i, name in enumerate(ATTRIBUTES):
        named = said[:, i] >= 0
        right = classes[name].cpu()[named] == said[named, i]
        found[name] = {"count": int(named.sum()), "judge": round(float(right.float().mean()), 4)}
        thing = name.removesuffix("_colour")
        if thing in PLACES and name.endswith("_colour"):
            right = by_pixels[thing][named] == said[named, i]
            found[name]["pixels"] = round(float(right.float().mean()), 4)
    return found


def evaluate(
    folder: Path, judge_path: Path, device: torch.device, count: int
) -> tuple[dict[str, Any], Tensor]:
    """The evaluation at default settings, on fewer prompts at other sizes; and the pictures."""
    pipeline = load_pipeline(folder, device)
    judge = load_judge(judge_path, device)
    settings = default_settings(folder)
    captions = held_out_prompts(count)
    prompts, seeds = [c.text for c in captions], list(range(count))
    pictures = generate(pipeline, prompts, seeds, settings)
    report: dict[str, Any] = {
        "prompts": count,
        "settings": settings,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "versions": {
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
        },
        "attributes": score(judge, pictures, captions),
        "other_sizes": {},
    }
    few = max(1, min(160, count // 4))
    for high, wide in OTHER_SIZES:
        sized = {**settings, "height": high, "width": wide}
        scores = score(
            judge, generate(pipeline, prompts[:few], seeds[:few], sized, 8), captions[:few]
        )
        asked = sum(s["count"] for s in scores.values())
        shown = sum(s["count"] * s["judge"] for s in scores.values() if s["count"])
        report["other_sizes"][f"{wide}x{high}"] = {
            "prompts": few, "asked": asked, "shown": round(shown / max(1, asked), 4)
        }  # fmt: skip
    return report, pictures


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=card.MODEL_FOLDER)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=800)
    parser.add_argument("--sheet", type=Path, help="the first 64 pictures, to look at")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = parser.parse_args(argv)
    report, pictures = evaluate(a.model, a.judge, torch.device(a.device), a.prompts)
    card.store(a.model, "accuracy", report)
    for name, row in report["attributes"].items():
        print(name, row, flush=True)
    print(report["other_sizes"], flush=True)
    if a.sheet:
        picture_sheet.save_sheet(pictures[:64], a.sheet, 8)


if __name__ == "__main__":
    main()
