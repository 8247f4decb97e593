"""Sheets and figures of a service's features on vista: ``python -m training.show_features ...``.

It asks a running ``rockiln serve`` as any client does: schedulers, a picture as a start, a mask,
the LoRA and the ControlNet that ship beside the model.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from training.draw import draw_batch
from training.grid import grid_prompts
from training.picture_pool import scene_batch
from training.picture_sheet import sheet
from training.styles import INKS, edges

LORA, CONTROLNET = "vista-print", "vista-lines"
SCHEDULERS = (
    "dpmpp_2m", "dpmpp_2m_karras", "dpmpp_2m_sde", "dpmpp_sde", "ddim", "euler",
    "euler_karras", "euler_ancestral", "heun", "unipc", "lcm",
)  # fmt: skip
SIDE_PX = 256
_SCENE = "a red house on the left, a lake, snowy mountains, pine trees on the right, blue sky"
_TEXTS = (
    "sunset, red sky", "a green house, daytime, blue sky, snow", "night, violet sky",
    "dawn, pink sky, sand",
)  # fmt: skip
_HELD_OUT_SEED = 9
# Lines this near are the same line.
_REACH_PX = 2


class Client:
    """A service and the shape of its answers."""

    def __init__(self, url: str) -> None:
        self._url = url

    def draw(self, prompt: str, seed: int, **more: Any) -> Tensor:
        """[3,H,W] in 0..1. Raises urllib.error.HTTPError on a refusal."""
        body = json.dumps({"prompt": prompt, "seed": seed, "model": "vista", **more}).encode()
        request = urllib.request.Request(  # noqa: S310 (the address is the caller's)
            f"{self._url}/generate", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310 (likewise)
            picture = Image.open(io.BytesIO(answer.read())).convert("RGB")
        return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255


def sent(picture: Tensor) -> str:
    """[3,H,W] or [1,H,W] in 0..1 as a request takes it."""
    pixels = (picture.expand(3, -1, -1) * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def line_agreement(picture: Tensor, lines: Tensor) -> float:
    """How far the lines of [3,H,W] are those of the map [1,H,W]: F1 of pixels, a reach apart."""

    def near(some: Tensor) -> Tensor:
        return functional.max_pool2d(some, 2 * _REACH_PX + 1, 1, _REACH_PX)

    own, wanted = edges(picture[None]), lines[None]
    precision = (own * near(wanted)).sum() / own.sum().clamp(min=1)
    recall = (wanted * near(own)).sum() / wanted.sum().clamp(min=1)
    return float(2 * precision * recall / (precision + recall).clamp(min=1e-6))


def ink_distance(picture: Tensor) -> float:
    """How far the pixels of [3,H,W] are from the nearest of the print's inks, in the mean."""
    inks = torch.tensor(INKS)
    return float(torch.cdist(picture.flatten(1).T, inks).amin(dim=1).mean())


def schedulers(client: Client) -> Tensor:
    """A row for each, three seeds."""
    return torch.stack(
        [client.draw(_SCENE, seed, scheduler=name) for name in SCHEDULERS for seed in range(3)]
    )


def starts(client: Client) -> Tensor:
    """A picture; at four strengths under other words; a mask on its house, filled three ways."""
    first = client.draw(_SCENE, 1)
    start = {"image": sent(first)}
    words = "a red house on the left, a lake, snowy mountains, night, navy sky, full moon"
    night = [client.draw(words, 2, **start, strength=each) for each in (0.3, 0.5, 0.7, 0.9)]
    mask = Image.new("L", (SIDE_PX, SIDE_PX))
    ImageDraw.Draw(mask).rectangle((16, 120, 140, 250), fill=255)
    area = torch.from_numpy(np.asarray(mask).copy())[None] / 255
    filled = [
        client.draw(f"a {what} on the left, a lake, snowy mountains, blue sky", 3, **start,
                    mask=sent(area), strength=1.0)
        for what in ("blue house", "yellow house", "meadow")
    ]  # fmt: skip
    return torch.stack([first, *night, area.expand(3, -1, -1), *filled, first])


def lora(client: Client, count: int) -> tuple[Tensor, dict[str, float]]:
    """Without; at half weight; whole."""
    prompts = grid_prompts(count)
    rows = [
        [
            client.draw(text, seed, **({"loras": [{"name": LORA, "weight": weight}]} if weight
                        else {}))
            for seed, text in enumerate(prompts)
        ]
        for weight in (0.0, 0.5, 1.0)
    ]  # fmt: skip
    distances = [float(np.mean([ink_distance(each) for each in row])) for row in rows]
    names = ("without", "at 0.5", "at 1.0")
    return torch.stack([each for row in rows for each in row[:6]]), dict(
        zip(names, distances, strict=True)
    )


def controlnet(client: Client, count: int) -> tuple[Tensor, dict[str, float]]:
    """Drawn scenes; their lines; the lines under other words; the same words and no lines."""
    scenes = scene_batch(_HELD_OUT_SEED, 0, count, torch.device("cpu"), 0)
    drawn, _ = draw_batch(scenes, SIDE_PX, SIDE_PX)
    maps = edges(drawn)
    held, free = [], []
    for seed, lines in enumerate(maps):
        text = _TEXTS[seed % len(_TEXTS)]
        use = [{"name": CONTROLNET, "image": sent(lines)}]
        held.append(client.draw(text, seed, controlnets=use))
        free.append(client.draw(text, seed))
    figures = {
        name: float(np.mean([line_agreement(*pair) for pair in zip(row, maps, strict=True)]))
        for name, row in (("with the lines", held), ("without", free))
    }
    six = [drawn[:6], maps[:6].expand(-1, 3, -1, -1), torch.stack(held[:6]), torch.stack(free[:6])]
    return torch.cat(six), figures


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sheets")
    parser.add_argument("--count", type=int, default=32, help="pictures for each figure")
    a = parser.parse_args(argv)
    client = Client(a.url)
    a.out.mkdir(parents=True, exist_ok=True)
    prints, inks = lora(client, a.count)
    lines, agreement = controlnet(client, a.count)
    for name, pictures, columns in (
        ("lora", prints, 6), ("controlnet", lines, 6), ("starts", starts(client), 5),
        ("schedulers", schedulers(client), 6),
    ):  # fmt: skip
        image = sheet(pictures, columns)
        image.resize((image.width * 5 // 8, image.height * 5 // 8)).save(
            a.out / f"{name}.png", optimize=True
        )
    said = {"distance to the inks": inks, "agreement of lines": agreement, "pictures": a.count}
    print(json.dumps(said, indent=1), flush=True)


if __name__ == "__main__":
    main()
