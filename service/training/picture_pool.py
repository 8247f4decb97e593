"""Drawn pictures kept in memory as bytes: drawn once, then cropped or encoded many times."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.draw import draw_batch
from training.scene_batch import ROW_LENGTH, SceneBatch, scene_row
from training.scenes import scene_at

_CHUNK = 2048


def _scene_rows(job: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    seed, first, count = job
    scenes = [scene_at(seed, first + i) for i in range(count)]
    rows = np.array([scene_row(s) for s in scenes], dtype=np.float32).reshape(-1, ROW_LENGTH)
    return rows, np.array([s.shape_seed for s in scenes], dtype=np.int64)


def scene_batch(
    seed: int, first: int, count: int, device: torch.device, workers: int
) -> SceneBatch:
    """Scenes ``first`` to ``first + count`` of a stream, sampled by ``workers`` processes (0:
    here).
    """
    jobs = [(seed, first + i, min(_CHUNK, count - i)) for i in range(0, count, _CHUNK)]
    if workers > 0 and len(jobs) > 1:
        with ProcessPoolExecutor(workers) as pool:
            parts = list(pool.map(_scene_rows, jobs))
    else:
        parts = [_scene_rows(job) for job in jobs]
    rows = torch.from_numpy(np.concatenate([p[0] for p in parts]))
    seeds = torch.from_numpy(np.concatenate([p[1] for p in parts]))
    return SceneBatch(rows.to(device), seeds.to(device))


@dataclass(frozen=True)
class PicturePool:
    """``pictures`` [N,4,H,W] uint8 (RGB and the weight map of named objects) of ``scenes``."""

    pictures: Tensor
    scenes: SceneBatch

    @staticmethod
    def draw(scenes: SceneBatch, height_px: int, width_px: int, batch: int = 256) -> PicturePool:
        device = scenes.rows.device
        pictures = torch.empty(
            len(scenes), 4, height_px, width_px, dtype=torch.uint8, device=device
        )
        for first in range(0, len(scenes), batch):
            rows = torch.arange(first, min(first + batch, len(scenes)), device=device)
            rgb, weight = draw_batch(scenes.take(rows), height_px, width_px)
            both = torch.cat((rgb, weight), dim=1)
            pictures[first : first + len(rows)] = (both * 255).round().to(torch.uint8)
        return PicturePool(pictures, scenes)

    def crops(self, count: int, side_px: int, generator: torch.Generator) -> Tensor:
        """``[count,4,side,side]`` uint8: square windows at random places of random pictures."""
        total, _, height, width = self.pictures.shape
        device = self.pictures.device

        def pick(high: int) -> Tensor:
            return torch.randint(high, (count,), generator=generator, device=device)

        which, top, left = pick(total), pick(height - side_px + 1), pick(width - side_px + 1)
        span = torch.arange(side_px, device=device)
        rows = (top.view(-1, 1) + span).view(count, 1, side_px, 1)
        cols = (left.view(-1, 1) + span).view(count, 1, 1, side_px)
        channels = torch.arange(4, device=device).view(1, 4, 1, 1)
        return self.pictures[which.view(-1, 1, 1, 1), channels, rows, cols]


def as_inputs(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Bytes [B,4,H,W] -> network pictures [B,3,H,W] in -1..1 and weights [B,1,H,W] in 0..1."""
    values = pictures.float() / 255
    return values[:, :3] * 2 - 1, values[:, 3:]
