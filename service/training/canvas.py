"""A batch of pictures under the brush, and the signed distances that the brush follows.

Lengths are in units of the picture's shorter side, so that the same scene fills any size. A shape
is a signed distance (negative inside); its coverage of a pixel is the distance clamped over one
pixel, which is what makes every edge smooth without supersampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Canvas:
    """``rgb`` [B,3,H,W] in 0..1 and ``weight`` [B,1,H,W] (1 where a small named object is).

    ``x`` [1,1,1,W] and ``y`` [1,1,H,1] are pixel centres; ``pixel`` is the width of one pixel;
    ``width`` and ``height`` are those of the whole picture, also on a band of it.
    """

    rgb: Tensor
    weight: Tensor
    x: Tensor
    y: Tensor
    pixel: float
    width: float
    height: float

    @staticmethod
    def blank(count: int, height_px: int, width_px: int, device: torch.device) -> Canvas:
        side = min(height_px, width_px)
        x = (torch.arange(width_px, device=device, dtype=torch.float32) + 0.5) / side
        y = (torch.arange(height_px, device=device, dtype=torch.float32) + 0.5) / side
        return Canvas(
            rgb=torch.zeros(count, 3, height_px, width_px, device=device),
            weight=torch.zeros(count, 1, height_px, width_px, device=device),
            x=x.view(1, 1, 1, -1),
            y=y.view(1, 1, -1, 1),
            pixel=1.0 / side,
            width=width_px / side,
            height=height_px / side,
        )

    def band(self, top: float, bottom: float) -> Canvas:
        """The rows between two fractions of the height, sharing memory with this canvas."""
        rows = self.rgb.shape[2]
        first, last = max(0, int(top * rows)), min(rows, int(bottom * rows) + 1)
        return Canvas(
            self.rgb[:, :, first:last],
            self.weight[:, :, first:last],
            self.x,
            self.y[:, :, first:last],
            self.pixel,
            self.width,
            self.height,
        )

    def take(self, rows: Tensor) -> Canvas:
        """A copy of some pictures of the batch; ``put`` brings it back."""
        return Canvas(
            self.rgb[rows],
            self.weight[rows],
            self.x,
            self.y,
            self.pixel,
            self.width,
            self.height,
        )

    def put(self, rows: Tensor, part: Canvas) -> None:
        self.rgb[rows] = part.rgb
        self.weight[rows] = part.weight

    def cover(self, distance: Tensor) -> Tensor:
        """Share of each pixel inside the shape, 0..1."""
        return (0.5 - distance / self.pixel).clamp(0.0, 1.0)

    def box(self, left: Tensor, right: Tensor, top: Tensor, bottom: Tensor) -> Tensor:
        """Coverage of an upright box: a product of two one-dimensional ramps, hence cheap."""
        across = self.cover(torch.maximum(left - self.x, self.x - right))
        down = self.cover(torch.maximum(top - self.y, self.y - bottom))
        return across * down

    def paint(self, colour: Tensor, alpha: Tensor, named: float = 0.0) -> None:
        """Blend ``colour`` (broadcastable to rgb) over the canvas; ``named`` marks an object."""
        self.rgb.add_((colour - self.rgb) * alpha)
        if named > 0.0:
            torch.maximum(self.weight, alpha * named, out=self.weight)


def column(values: Tensor) -> Tensor:
    """[B] -> [B,1,1,1], to broadcast over a picture."""
    return values.view(-1, 1, 1, 1)


def colours(values: Tensor) -> Tensor:
    """[B,3] -> [B,3,1,1]."""
    return values.view(-1, 3, 1, 1)


def circle(x: Tensor, y: Tensor, radius: Tensor | float) -> Tensor:
    return torch.sqrt(x * x + y * y + 1e-12) - radius


def half_plane(x: Tensor, y: Tensor, run: Tensor | float, rise: Tensor | float) -> Tensor:
    """Distance to the line through the origin along (run, rise); negative to its right."""
    run_t = torch.as_tensor(run, dtype=x.dtype, device=x.device)
    rise_t = torch.as_tensor(rise, dtype=x.dtype, device=x.device)
    return (rise_t * x - run_t * y) / torch.sqrt(run_t * run_t + rise_t * rise_t)


def below(canvas: Canvas, ridge: Tensor) -> Tensor:
    """Signed distance to the ground under a height line ``ridge`` [B,1,1,W] (a y per column)."""
    slope = torch.zeros_like(ridge)
    slope[..., 1:-1] = (ridge[..., 2:] - ridge[..., :-2]) / (2 * canvas.pixel)
    return (ridge - canvas.y) / torch.sqrt(1 + slope * slope)


def uniforms(seeds: Tensor, count: int) -> Tensor:
    """``[B, count]`` numbers in 0..1 hashed from integer seeds: equal on CPU and GPU."""
    mask = 0xFFFFFFFF
    index = torch.arange(1, count + 1, device=seeds.device, dtype=torch.int64)
    h = (seeds.view(-1, 1) * 0x1E3779B1 + index * 0x45EBCA6B) & mask
    for multiplier in (0x7FEB352D, 0x46CA68B5):
        h = (h ^ (h >> 16)) * multiplier & mask
        h = h ^ (h >> 15)
    return (h ^ (h >> 16)).to(torch.float32) / float(1 << 32)
