"""Scenes in, pictures out: the painter's order, each layer on the scenes that have it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from training import draw_land, draw_objects, draw_sky
from training.canvas import Canvas
from training.scene_batch import SceneBatch
from training.scenes import Scene, Sky, Time, TreeKind

_Painter = Callable[[Canvas, SceneBatch], None]


def _layer(
    canvas: Canvas, batch: SceneBatch, rows: Tensor, painter: _Painter, band: tuple[float, float]
) -> None:
    """Let ``painter`` work on the scenes ``rows``, within a band of the picture's height."""
    if rows.numel() == 0:
        return
    area = canvas.band(*band)
    part = area.take(rows)
    painter(part, batch.take(rows))
    area.put(rows, part)


def draw_batch(batch: SceneBatch, height_px: int, width_px: int) -> tuple[Tensor, Tensor]:
    """Pictures [B,3,H,W] in 0..1 and the weight map [B,1,H,W] of their named objects."""
    canvas = Canvas.blank(len(batch), height_px, width_px, batch.rows.device)

    def present(name: str) -> Tensor:
        return torch.nonzero(batch.kind(name) > 0).flatten()

    draw_sky.sky(canvas, batch)
    _layer(canvas, batch, batch.where("time", Time.NIGHT), draw_sky.stars, (0.0, 0.6))
    _layer(canvas, batch, batch.where("sky", Sky.AURORA), draw_sky.aurora, (0.0, 0.6))
    _layer(canvas, batch, present("light"), draw_sky.light, (0.0, 0.6))
    _layer(canvas, batch, present("clouds"), draw_sky.clouds, (0.0, 0.5))
    for relief, painter in draw_land.RELIEF_PAINTERS.items():
        _layer(canvas, batch, batch.where("relief", relief), painter, (0.2, 0.62))
    for water, painter in draw_land.WATER_PAINTERS.items():
        _layer(canvas, batch, batch.where("water", water), painter, (0.0, 1.0))
    _layer(canvas, batch, batch.where("water", "none"), draw_land.plain, (0.48, 1.0))
    _layer(canvas, batch, batch.where("boat", "present"), draw_objects.boat, (0.35, 0.85))
    _layer(canvas, batch, present("water"), draw_land.foreground, (0.7, 1.0))
    for kind in (TreeKind.PINES, TreeKind.PALMS, TreeKind.ROUND):

        def grove(part: Canvas, scenes: SceneBatch, kind: TreeKind = kind) -> None:
            draw_objects.trees(part, scenes, kind)

        _layer(canvas, batch, batch.where("trees", kind), grove, (0.3, 1.0))
    _layer(canvas, batch, batch.where("house", "present"), draw_objects.house, (0.5, 1.0))
    _layer(canvas, batch, batch.where("birds", "present"), draw_sky.birds, (0.0, 0.5))
    return canvas.rgb.clamp(0, 1), canvas.weight.clamp(0, 1)


def draw(scenes: list[Scene], height_px: int, width_px: int) -> Tensor:
    """Pictures of a few scenes on the CPU, [B,3,H,W] in 0..1."""
    return draw_batch(SceneBatch.of(scenes, torch.device("cpu")), height_px, width_px)[0]
