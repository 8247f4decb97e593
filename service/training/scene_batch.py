"""Scenes as tensors: the form in which the drawing code and the label pools want them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.attributes import ATTRIBUTES, labels, scene_attributes
from training.scenes import CLOUD_COUNTS, Scene

_GEOMETRY = (
    "horizon", "shore", "clouds", "tree_count",
    "house_x", "house_y", "house_size",
    "boat_x", "boat_y", "boat_size",
    "light_x", "light_y", "light_radius",
    "birds_x", "birds_y",
)  # fmt: skip
ROW_LENGTH = len(_GEOMETRY) + len(ATTRIBUTES)


def scene_row(scene: Scene) -> list[float]:
    """One scene as numbers: geometry, then attribute classes. The shape seed travels apart."""
    trees, house, boat = scene.trees, scene.house, scene.boat
    light, birds = scene.light, scene.birds
    geometry = [
        scene.horizon,
        scene.shore,
        float(CLOUD_COUNTS[scene.clouds]),
        float(trees.count) if trees else 0.0,
        *((house.x, house.y, house.size) if house else (0.0, 0.0, 0.0)),
        *((boat.x, boat.y, boat.size) if boat else (0.0, 0.0, 0.0)),
        *((light.x, light.y, light.radius) if light else (0.0, 0.0, 0.0)),
        *((birds.x, birds.y) if birds else (0.0, 0.0)),
    ]
    return geometry + [float(label) for label in labels(scene_attributes(scene))]


@dataclass(frozen=True)
class SceneBatch:
    """``rows`` [B, ROW_LENGTH] float32 and ``seeds`` [B] int64."""

    rows: Tensor
    seeds: Tensor

    @staticmethod
    def of(scenes: list[Scene], device: torch.device) -> SceneBatch:
        rows = torch.tensor([scene_row(s) for s in scenes], dtype=torch.float32, device=device)
        seeds = torch.tensor([s.shape_seed for s in scenes], dtype=torch.int64, device=device)
        return SceneBatch(rows.view(-1, ROW_LENGTH), seeds)

    def __len__(self) -> int:
        return self.rows.shape[0]

    def take(self, chosen: Tensor) -> SceneBatch:
        return SceneBatch(self.rows[chosen], self.seeds[chosen])

    def number(self, name: str) -> Tensor:
        """A geometry column ``[B]``."""
        return self.rows[:, _GEOMETRY.index(name)]

    def kind(self, name: str) -> Tensor:
        """An attribute's class indices ``[B]`` (int64; -1 where the scene has none)."""
        place = len(_GEOMETRY) + list(ATTRIBUTES).index(name)
        return self.rows[:, place].to(torch.int64)

    def labels(self) -> Tensor:
        """All attribute classes ``[B, len(ATTRIBUTES)]`` int64."""
        return self.rows[:, len(_GEOMETRY) :].to(torch.int64)

    def where(self, name: str, value: str) -> Tensor:
        """Indices of the scenes whose attribute ``name`` is ``value``."""
        wanted = ATTRIBUTES[name].index(value)
        return torch.nonzero(self.kind(name) == wanted).flatten()
