"""A judge: a small network, trained on drawn pictures only, that reads a picture's attributes.

It also says where the house and the boat are, so that pixel tests can look there: a network may
read traces that no person sees, the mean colour of a wall may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from training.attributes import ATTRIBUTES
from training.scene_batch import SceneBatch

PLACES = ("house", "boat")
_GRID = 8


class _Block(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(inner, outer, 3, stride=2, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(8, outer) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(outer, outer, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        y = self.convs[0](functional.silu(self.norms[0](x)))
        z: Tensor = self.convs[1](functional.silu(self.norms[1](y)))
        return x + z


@dataclass(frozen=True)
class Reading:
    """``logits`` per attribute [B, classes]; ``places`` [B, 2, 2]: x and y fractions of house and
    boat.
    """

    logits: dict[str, Tensor]
    places: Tensor


class Judge(nn.Module):
    """Pictures [B,3,H,W] in 0..1, about 256 px high, to a ``Reading``."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = (width, 2 * width, 3 * width, 4 * width)
        self.blocks = nn.ModuleList(
            _Block(inner, outer) for inner, outer in zip((5, *sizes[:-1]), sizes, strict=True)
        )
        self.hidden = nn.Linear(sizes[3] * _GRID * _GRID, 256)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(256, len(values)) for name, values in ATTRIBUTES.items()}
        )
        self.heat = nn.Sequential(
            nn.Conv2d(sizes[2] + sizes[3], 2 * width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * width, len(PLACES), 1),
        )

    def forward(self, pictures: Tensor) -> Reading:
        count, _, high, wide = pictures.shape
        # Position channels: without them a convolution cannot tell left from right.
        x = torch.linspace(-1, 1, wide, device=pictures.device).view(1, 1, 1, -1)
        y = torch.linspace(-1, 1, high, device=pictures.device).view(1, 1, -1, 1)
        where = torch.cat((x.expand(count, 1, high, wide), y.expand(count, 1, high, wide)), dim=1)
        features = torch.cat((pictures * 2 - 1, where), dim=1)
        stages = []
        for block in self.blocks:
            features = block(features)
            stages.append(features)
        pooled = functional.adaptive_avg_pool2d(stages[3], _GRID).flatten(1)
        hidden = functional.silu(self.hidden(pooled))
        fine = stages[2]
        coarse = functional.interpolate(stages[3], fine.shape[-2:], mode="nearest")
        heat = self.heat(torch.cat((fine, coarse), dim=1)).float().flatten(2).softmax(dim=-1)
        rows, cols = fine.shape[-2:]
        gx = (torch.arange(cols, device=heat.device) + 0.5) / cols
        gy = (torch.arange(rows, device=heat.device) + 0.5) / rows
        grid = torch.stack(
            (gx.view(1, -1).expand(rows, cols), gy.view(-1, 1).expand(rows, cols)), dim=-1
        ).reshape(-1, 2)
        logits = {name: head(hidden).float() for name, head in self.heads.items()}
        return Reading(logits, heat @ grid)


def judge_loss(judge: Judge, pictures: Tensor, labels: Tensor, places: Tensor) -> dict[str, Tensor]:
    """``labels`` [B,A] (-1: not judged) and ``places`` [B,2,2] (negative: no such object)."""
    with torch.autocast(
        pictures.device.type, torch.bfloat16, pictures.is_cuda, cache_enabled=False
    ):
        reading = judge(pictures)
    total = torch.zeros((), device=pictures.device)
    for i, name in enumerate(ATTRIBUTES):
        losses = functional.cross_entropy(
            reading.logits[name], labels[:, i], ignore_index=-1, reduction="sum"
        )
        total = total + losses / (labels[:, i] >= 0).sum().clamp(min=1)
    there = (places[..., 0] >= 0).unsqueeze(-1)
    far = ((reading.places - places).abs() * there).sum() / there.sum().clamp(min=1)
    return {"loss": total + 20.0 * far, "far": far}


def scene_places(scenes: SceneBatch) -> Tensor:
    """Base points of house and boat, [B,2,2]; -1 where there is none."""
    parts = []
    for name in PLACES:
        point = torch.stack((scenes.number(f"{name}_x"), scenes.number(f"{name}_y")), dim=-1)
        there = (scenes.kind(name) > 0).unsqueeze(-1)
        parts.append(torch.where(there, point, torch.full_like(point, -1.0)))
    return torch.stack(parts, dim=1)


def load_judge(path: Path, device: torch.device) -> Judge:
    judge = Judge()
    judge.load_state_dict(load_file(path))
    return judge.to(device).eval()


@torch.no_grad()
def read(judge: Judge, pictures: Tensor, batch: int = 64) -> tuple[dict[str, Tensor], Tensor]:
    """Predicted classes per attribute [B] and places [B,2,2]; pictures are read at 256 px."""
    device = next(judge.parameters()).device
    classes: dict[str, list[Tensor]] = {name: [] for name in ATTRIBUTES}
    places = []
    for piece in torch.split(pictures, batch):
        part = piece.to(device).float()
        short = min(part.shape[-2:])
        if short != 256:
            size = [round(side * 256 / short) for side in part.shape[-2:]]
            part = functional.interpolate(part, size, mode="bilinear", antialias=True)
        reading = judge(part)
        places.append(reading.places)
        for name, logits in reading.logits.items():
            classes[name].append(logits.argmax(dim=-1))
    return {name: torch.cat(parts) for name, parts in classes.items()}, torch.cat(places)
