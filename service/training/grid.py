"""Sheets of pictures at default settings: ``python -m training.grid`` makes the front page's
twelve.

Prompts are the first of a stream and picture i has seed i: nobody picks the good ones.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from PIL import Image

from training import card, picture_sheet
from training.captions import describe
from training.sampling import default_settings, generate, load_pipeline
from training.scenes import scene_at

GRID_SEED = 30_011
FRONT_PAGE = 12
BEGIN, END = "<!-- grid:begin -->", "<!-- grid:end -->"
# Outside its world, or empty: these must still give landscapes.
STRANGE_PROMPTS = (
    "", "a cat in a car", "portrait of a woman", "xqz wvv 12345", "a robot dancing on the table",
    "a red house", "cyberpunk city street, neon lights, rain", "!!!",
)  # fmt: skip


def grid_prompts(count: int) -> list[str]:
    """The first captions of the grid's stream that say at least six things, so that a reader can
    check.
    """
    found: list[str] = []
    index = 0
    while len(found) < count:
        caption = describe(scene_at(GRID_SEED, index), random.Random(GRID_SEED + index))
        if len(caption.said) >= 6:
            found.append(caption.text)
        index += 1
    return found


def write_prompts(folder: Path, prompts: list[str]) -> None:
    """List the grid's prompts in the card, between its markers."""
    path = folder / "README.md"
    text = path.read_text()
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    lines = "\n".join(f"{i + 1}. {prompt}" for i, prompt in enumerate(prompts))
    path.write_text(f"{head}{BEGIN}\n{lines}\n{END}{tail}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=card.MODEL_FOLDER)
    parser.add_argument("--count", type=int, default=FRONT_PAGE)
    parser.add_argument(
        "--strange", action="store_true", help="prompts from outside its world instead"
    )
    parser.add_argument("--width", type=int, help="picture width, if not the default")
    parser.add_argument("--height", type=int, help="picture height, if not the default")
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument(
        "--tile-px", type=int, help="shrink each picture to this width on the sheet"
    )
    parser.add_argument(
        "--out", type=Path, help="default: grid.png beside the card, with its prompts listed"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = parser.parse_args(argv)
    settings = default_settings(a.model)
    settings["width"] = a.width or settings["width"]
    settings["height"] = a.height or settings["height"]
    prompts = list(STRANGE_PROMPTS) if a.strange else grid_prompts(a.count)
    pipeline = load_pipeline(a.model, torch.device(a.device))
    pictures = generate(pipeline, prompts, list(range(len(prompts))), settings, 8)
    image = picture_sheet.sheet(pictures, a.columns, gap_px=0 if a.tile_px is None else 4)
    if a.tile_px:
        scale = a.tile_px / settings["width"]
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS)
    out = a.out or a.model / "grid.png"
    image.save(out, optimize=True)
    if a.out is None:
        write_prompts(a.model, prompts)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
