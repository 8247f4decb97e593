"""What hangs over the horizon: sky, stars, aurora, sun and moon, clouds, birds."""

from __future__ import annotations

import torch
from torch import Tensor

from training import palette
from training.canvas import Canvas, circle, colours, column, uniforms
from training.scene_batch import SceneBatch
from training.scenes import LightKind, Sky, Time

_STARS = 46
_CLOUD_LOBES = ((-0.62, 0.02, 0.34), (-0.12, -0.22, 0.52), (0.42, -0.06, 0.42), (0.80, 0.08, 0.26))
_BIRD_PLACES = ((-0.115, 0.012), (-0.055, -0.028), (0.0, 0.018), (0.06, -0.022), (0.12, 0.008))


def by_time(batch: SceneBatch, values: dict[Time, palette.Rgb]) -> Tensor:
    """The colour of each scene's time of day, [B,3,1,1]."""
    rows = palette.table([values[t] for t in Time], batch.rows.device)
    return colours(rows[batch.kind("time")])


def sky(canvas: Canvas, batch: SceneBatch) -> None:
    stops = [
        colours(
            palette.table([palette.SKY_STOPS[s][i] for s in Sky], batch.rows.device)[
                batch.kind("sky")
            ]
        )
        for i in range(3)
    ]
    t = canvas.y / (canvas.height * column(batch.number("horizon")))
    upper = (t / 0.55).clamp(0, 1)
    lower = ((t - 0.55) / 0.45).clamp(0, 1)
    canvas.rgb.copy_(torch.lerp(torch.lerp(stops[0], stops[1], upper), stops[2], lower))


def stars(canvas: Canvas, batch: SceneBatch) -> None:
    """Small discs, each drawn into its own few pixels; overlaps take the brighter one."""
    u = uniforms(batch.seeds + 101, 3 * _STARS).view(-1, _STARS, 3)
    count, _, rows, cols = canvas.rgb.shape
    cx = u[..., 0] * canvas.width
    cy = u[..., 1] * batch.number("horizon").view(-1, 1) * canvas.height * 0.92
    radius = 0.0035 + 0.003 * u[..., 2]
    reach = int(0.0065 / canvas.pixel) + 2
    steps = torch.arange(-reach, reach + 1, device=u.device)
    col = (cx / canvas.pixel).long().view(count, _STARS, 1, 1) + steps.view(1, 1, 1, -1)
    row = (cy / canvas.pixel).long().view(count, _STARS, 1, 1) + steps.view(1, 1, -1, 1)
    dx = (col + 0.5) * canvas.pixel - cx.view(count, _STARS, 1, 1)
    dy = (row + 0.5) * canvas.pixel - cy.view(count, _STARS, 1, 1)
    alpha = canvas.cover(circle(dx, dy, radius.view(count, _STARS, 1, 1)))
    inside = (col >= 0) & (col < cols) & (row >= 0) & (row < rows)
    flat = row.clamp(0, rows - 1) * cols + col.clamp(0, cols - 1)
    field = torch.zeros(count, rows * cols, device=u.device)
    field.scatter_reduce_(1, flat.flatten(1), (alpha * inside).flatten(1), "amax")
    canvas.paint(
        torch.tensor([0.96, 0.97, 1.0], device=u.device).view(1, 3, 1, 1),
        field.view(count, 1, rows, cols),
    )


def aurora(canvas: Canvas, batch: SceneBatch) -> None:
    u = uniforms(batch.seeds + 202, 8)
    green = torch.tensor([0.24, 0.92, 0.60], device=u.device).view(1, 3, 1, 1)
    for i, level in enumerate((0.16, 0.30)):
        phase = column(u[:, 4 * i]) * 6.28
        wave = torch.sin(canvas.x * (3.5 + 2 * i) + phase) + 0.5 * torch.sin(
            canvas.x * 8.0 + 2 * phase
        )
        middle = canvas.height * (level + 0.06 * column(u[:, 4 * i + 1])) + 0.04 * wave
        rise = middle - canvas.y
        # A curtain: sharp lower hem, slow fade upwards.
        glow = torch.exp(-rise.clamp(min=0) / 0.085) * torch.exp(-((-rise).clamp(min=0) / 0.016))
        canvas.paint(green, 0.72 * glow)


def light(canvas: Canvas, batch: SceneBatch) -> None:
    radius = column(batch.number("light_radius"))
    dx = canvas.x - column(batch.number("light_x")) * canvas.width
    dy = canvas.y - column(batch.number("light_y")) * canvas.height
    colour = by_time(batch, palette.SUN_COLOURS)
    d = circle(dx, dy, radius)
    canvas.paint(colour, 0.16 * canvas.cover(d - 0.75 * radius))
    canvas.paint(colour, 0.24 * canvas.cover(d - 0.36 * radius))
    crescent = column(
        (batch.kind("light") == list(LightKind).index(LightKind.CRESCENT)).to(dx.dtype)
    )
    bite = canvas.cover(circle(dx + 0.48 * radius, dy + 0.16 * radius, 0.86 * radius))
    canvas.paint(colour, canvas.cover(d) * (1 - crescent * bite), named=0.6)


def clouds(canvas: Canvas, batch: SceneBatch) -> None:
    u = uniforms(batch.seeds + 303, 24).view(-1, 6, 4)
    count = batch.number("clouds")
    bright = by_time(batch, {t: v[0] for t, v in palette.CLOUD_SHADES.items()})
    shade = by_time(batch, {t: v[1] for t, v in palette.CLOUD_SHADES.items()})
    light_x, light_y = batch.number("light_x"), batch.number("light_y")
    lit = batch.kind("light") > 0
    for i in range(int(count.max())):
        # Clouds share the width between them, so that "many" never hides behind one another.
        shared = ((i * 5) % 6 + 0.2 + 0.6 * u[:, i, 0]) / 6
        x = torch.where(count > 2, shared, 0.12 + 0.45 * i + 0.3 * u[:, i, 0])
        y = 0.08 + 0.20 * u[:, i, 1]
        # Clear of the sun or moon: one that is named must be seen.
        near = lit & ((x - light_x).abs() < 0.2) & ((y - light_y).abs() < 0.13)
        y = torch.where(near, torch.where(light_y > 0.19, 0.055, light_y + 0.13), y)
        size = column(0.095 + 0.035 * u[:, i, 2])
        flip = column(torch.where(u[:, i, 3] > 0.5, 1.0, -1.0))
        dx = (canvas.x - column(x) * canvas.width) * flip
        dy = canvas.y - column(y) * canvas.height
        d = torch.full_like(dx + dy, 10.0)
        for lx, ly, lr in _CLOUD_LOBES:
            d = torch.minimum(d, circle(dx - lx * size, dy - ly * size, lr * size))
        d = torch.maximum(d, dy - 0.26 * size)
        there = column((count > i).to(dx.dtype))
        fade = (dy / (0.3 * size)).clamp(0, 1)
        canvas.paint(torch.lerp(bright, shade, fade), 0.96 * there * canvas.cover(d), named=0.3)


def birds(canvas: Canvas, batch: SceneBatch) -> None:
    u = uniforms(batch.seeds + 404, 10)
    dark = torch.tensor(palette.BIRD, device=u.device).view(1, 3, 1, 1)
    alpha = torch.zeros_like(canvas.weight)
    for i, (ox, oy) in enumerate(_BIRD_PLACES):
        span = column(0.026 + 0.006 * u[:, 2 * i])
        dx = canvas.x - column(batch.number("birds_x")) * canvas.width - ox
        dy = canvas.y - column(batch.number("birds_y")) * canvas.height
        dy = dy - oy - 0.02 * column(u[:, 2 * i + 1])
        reach = dx.abs() / span
        # Two arched wings: high at the shoulder, low at the body and at the tips.
        wing = dy + span * 0.55 * torch.sin(3.14159 * reach.clamp(0, 1) ** 0.7)
        thickness = 0.0062 * (1.15 - 0.8 * reach.clamp(0, 1))
        d = torch.maximum(0.8 * wing.abs() - thickness, dx.abs() - span)
        alpha = torch.maximum(alpha, canvas.cover(d))
    canvas.paint(dark, alpha, named=1.0)
