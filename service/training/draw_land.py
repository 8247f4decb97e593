"""What lies under the sky: mountains, hills and dunes, water with its reflections, ground."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training import palette
from training.canvas import Canvas, below, colours, column, half_plane, uniforms
from training.draw_sky import by_time
from training.scene_batch import SceneBatch
from training.scenes import Ground, Relief, Water

_PEAKS = 5
# Back to front: the outer and middle peaks stand behind the two between them.
_PEAK_ORDER = (0, 4, 2, 1, 3)
_DASHES = 16
# Light on the water has the colour of lit clouds.
GLINT = {time: shades[0] for time, shades in palette.CLOUD_SHADES.items()}


def _horizon(canvas: Canvas, batch: SceneBatch) -> Tensor:
    return column(batch.number("horizon")) * canvas.height


def _haze(batch: SceneBatch) -> Tensor:
    """Colour of the sky at the horizon, which far things fade into."""
    rows = palette.table([stops[2] for stops in palette.SKY_STOPS.values()], batch.rows.device)
    return colours(rows[batch.kind("sky")])


def _relief_shades(batch: SceneBatch, relief: Relief) -> tuple[Tensor, Tensor, Tensor]:
    tint = by_time(batch, palette.LAND_TINT)
    light, dark, cap = (
        torch.tensor(c, device=batch.rows.device).view(1, 3, 1, 1) * tint
        for c in palette.RELIEF_SHADES[relief]
    )
    return light, dark, cap


def mountains(canvas: Canvas, batch: SceneBatch) -> None:
    """Peaks with a lit and a shaded face and a jagged cap of snow."""
    u = uniforms(batch.seeds + 505, 6 * _PEAKS + 2)
    light, dark, cap = _relief_shades(batch, Relief.MOUNTAINS)
    haze = _haze(batch)
    base = _horizon(canvas, batch)
    # Night caps glow less than day ones but must stay the brightest part of the relief.
    cap = torch.maximum(cap, 1.35 * light).clamp(0, 1)
    for order, k in enumerate(_PEAK_ORDER):
        v = u[:, 6 * k : 6 * k + 6]
        x = (k + 0.5 + 0.5 * (column(v[:, 0]) - 0.5)) / _PEAKS * canvas.width
        rise = (0.15 if order < 3 else 0.10) + 0.08 * column(v[:, 1])
        run = canvas.width * 0.10 + rise * (0.75 + 0.3 * column(v[:, 2]))
        dx, dy = canvas.x - x, canvas.y - (base - rise)
        shape = half_plane(dx.abs(), dy, run, rise)
        shape = torch.maximum(shape, canvas.y - base - 0.01)
        near = 1.0 if order >= 3 else 0.82
        body = canvas.cover(shape)
        zig = (
            0.10 * rise * torch.sin(dy / rise * (9 + 4 * column(v[:, 3])) + 6.28 * column(v[:, 4]))
        )
        shaded = canvas.cover(zig + 0.28 * dy * (column(v[:, 5]) - 0.3) - dx)
        face = torch.lerp(light, dark, shaded)
        canvas.paint(torch.lerp(haze, face, near), body)
        teeth = (dx / run * 3.5 + column(v[:, 3])) % 1.0
        line = rise * (0.30 + 0.26 * (teeth - 0.5).abs())
        snow = body * canvas.cover(dy - line)
        white = torch.lerp(cap, torch.lerp(cap, dark, 0.38), shaded)
        canvas.paint(white, snow)


def _humps(canvas: Canvas, u: Tensor, count: int) -> Tensor:
    """A rolling outline: 0 in the valleys, up to 1 on the tops. ``u`` [B, 3*count]."""
    outline = torch.zeros(u.shape[0], 1, 1, canvas.x.shape[-1], device=u.device)
    for k in range(count):
        v = u[:, 3 * k : 3 * k + 3]
        x = (k + 0.5 + 0.6 * (column(v[:, 0]) - 0.5)) / count * canvas.width
        reach = canvas.width / count * (0.75 + 0.4 * column(v[:, 1]))
        bump = torch.cos(((canvas.x - x) / reach).clamp(-1, 1) * 1.5708) ** 2
        outline = torch.maximum(outline, bump * (0.55 + 0.45 * column(v[:, 2])))
    return outline


def hills(canvas: Canvas, batch: SceneBatch) -> None:
    u = uniforms(batch.seeds + 606, 24)
    light, dark, top = _relief_shades(batch, Relief.HILLS)
    haze = _haze(batch)
    base = _horizon(canvas, batch)
    for layer, (count, rise) in enumerate(((3, 0.20), (4, 0.11))):
        outline = _humps(canvas, u[:, 12 * layer : 12 * layer + 12], count)
        ridge = base - 0.03 - (rise - 0.03) * outline
        body = canvas.cover(below(canvas, ridge)) * canvas.cover(canvas.y - base - 0.01)
        depth = ((canvas.y - ridge) / rise).clamp(0, 1)
        near = torch.lerp(top, light, depth) if layer == 0 else torch.lerp(light, dark, depth)
        canvas.paint(torch.lerp(haze, near, 0.72 if layer == 0 else 0.95), body)


def dunes(canvas: Canvas, batch: SceneBatch) -> None:
    """Long windward slopes, short steep lee sides in shade."""
    u = uniforms(batch.seeds + 707, 12)
    light, dark, top = _relief_shades(batch, Relief.DUNES)
    base = _horizon(canvas, batch)
    for k, (where, rise0) in enumerate(((0.25, 0.15), (0.80, 0.12), (0.52, 0.07))):
        v = u[:, 4 * k : 4 * k + 4]
        x = (where + 0.16 * (column(v[:, 0]) - 0.5)) * canvas.width
        rise = rise0 + 0.05 * column(v[:, 1])
        mirror = torch.where(column(v[:, 2]) > 0.5, 1.0, -1.0)
        dx = (canvas.x - x) * mirror
        long_run = (0.42 + 0.15 * column(v[:, 3])) * canvas.width
        short_run = 0.42 * long_run
        windward = (1 + dx / long_run).clamp(0, 1) ** 1.25
        lee = (1 - dx / short_run).clamp(0, 1) ** 1.1
        ridge = base - rise * torch.where(dx < 0, windward, lee) + 0.002
        body = canvas.cover(below(canvas, ridge)) * canvas.cover(canvas.y - base - 0.01)
        dy = canvas.y - (base - rise)
        shade = canvas.cover(0.55 * dy - dx + 0.03 * torch.sin(dy * 30.0))
        canvas.paint(torch.lerp(torch.lerp(light, top, 0.6 - 0.3 * k), dark, shade), body)


def _dashes(canvas: Canvas, u: Tensor, top: Tensor, bottom: Tensor) -> Tensor:
    """Thin glints between two heights, a sum of separable boxes. ``u`` [B, 3*_DASHES]."""
    v = u.view(-1, _DASHES, 3)
    x = v[..., 0:1] * canvas.width
    t = v[..., 1:2]
    y = top.view(-1, 1, 1) + (bottom - top).view(-1, 1, 1) * (0.06 + 0.9 * t)
    half = 0.02 + 0.035 * v[..., 2:3]
    across = canvas.cover((canvas.x.view(1, 1, -1) - x).abs() - half)
    down = canvas.cover((canvas.y.view(1, 1, -1) - y).abs() - 0.0032)
    return torch.einsum("bkw,bkh->bhw", across, down).clamp(0, 1).unsqueeze(1)


def shore_line(canvas: Canvas, batch: SceneBatch) -> Tensor:
    """Height of the near bank, [B,1,1,W]."""
    u = uniforms(batch.seeds + 808, 2)
    wave = torch.sin(canvas.x * (4.0 + 3.0 * column(u[:, 0])) + 6.28 * column(u[:, 1]))
    return column(batch.number("shore")) * canvas.height + 0.010 * wave


def lake(canvas: Canvas, batch: SceneBatch) -> None:
    """A mirror of what stands above the horizon, with a bank of ground along the far side."""
    horizon = _horizon(canvas, batch)
    mirrored = (2 * horizon - canvas.y).flatten(1)
    rows = canvas.rgb.shape[2]
    # grid_sample's coordinates: -1 and 1 are the outer edges of the picture.
    gy = (2 * mirrored / canvas.height - 1).view(-1, rows, 1)
    gx = (2 * canvas.x / canvas.width - 1).view(1, 1, -1)
    grid = torch.stack((gx.expand(len(batch), rows, -1), gy.expand(-1, -1, gx.shape[-1])), dim=-1)
    image = functional.grid_sample(
        canvas.rgb, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    tint = by_time(batch, palette.LAND_TINT)
    near = torch.tensor(palette.WATER_SHADES[Water.LAKE][1], device=tint.device).view(1, 3, 1, 1)
    depth = ((canvas.y - horizon) / (0.32 * canvas.height)).clamp(0, 1)
    colour = torch.lerp(image * 0.93, near * tint, 0.14 + 0.26 * depth)
    canvas.paint(colour, canvas.cover(horizon - canvas.y))
    shore = column(batch.number("shore")) * canvas.height
    u = uniforms(batch.seeds + 909, 3 * _DASHES)
    glint = by_time(batch, GLINT)
    canvas.paint(glint, 0.34 * _dashes(canvas, u, horizon + 0.03, shore))
    bank = ground_shade(batch, 0) * 0.86
    canvas.paint(bank, canvas.cover((canvas.y - horizon).abs() - 0.009))


def sea(canvas: Canvas, batch: SceneBatch) -> None:
    """Open water: deep colour, glints, and surf along the near shore."""
    horizon = _horizon(canvas, batch)
    tint = by_time(batch, palette.LAND_TINT)
    far, near = (
        torch.tensor(c, device=tint.device).view(1, 3, 1, 1) * tint
        for c in palette.WATER_SHADES[Water.SEA]
    )
    depth = ((canvas.y - horizon) / (0.3 * canvas.height)).clamp(0, 1)
    colour = torch.lerp(torch.lerp(far, _haze(batch), 0.16), near, depth)
    canvas.paint(colour, canvas.cover(horizon - canvas.y))
    shore = column(batch.number("shore")) * canvas.height
    u = uniforms(batch.seeds + 1010, 3 * _DASHES)
    glint = by_time(batch, GLINT)
    canvas.paint(glint, 0.5 * _dashes(canvas, u, horizon + 0.02, shore))
    foam = canvas.cover((canvas.y - shore_line(canvas, batch)).abs() - 0.013)
    canvas.paint(torch.lerp(glint, torch.ones_like(glint), 0.35), 0.9 * foam)


def ground_shade(batch: SceneBatch, which: int) -> Tensor:
    """Far (0) or near (1) colour of the ground in its light, [B,3,1,1]."""
    rows = palette.table([palette.GROUND_SHADES[g][which] for g in Ground], batch.rows.device)
    return colours(rows[batch.kind("ground")]) * by_time(batch, palette.LAND_TINT)


def plain(canvas: Canvas, batch: SceneBatch) -> None:
    """Ground from the horizon down, in three rolling bands (scenes without water)."""
    u = uniforms(batch.seeds + 1111, 6)
    far, near = ground_shade(batch, 0), ground_shade(batch, 1)
    horizon = _horizon(canvas, batch)
    for i, start in enumerate((0.0, 0.16, 0.55)):
        wave = torch.sin(
            canvas.x * (2.2 + 2.0 * column(u[:, 2 * i])) + 6.28 * column(u[:, 2 * i + 1])
        )
        level = horizon + start * (canvas.height - horizon) + (0.0 if i == 0 else 0.018) * wave
        level = level.expand(-1, -1, -1, canvas.x.shape[-1])
        canvas.paint(
            torch.lerp(far, near, (0.12, 0.5, 0.95)[i]), canvas.cover(below(canvas, level))
        )


def foreground(canvas: Canvas, batch: SceneBatch) -> None:
    """The near bank of a lake or a sea."""
    line = shore_line(canvas, batch)
    near = ground_shade(batch, 1)
    canvas.paint(torch.lerp(near, ground_shade(batch, 0), 0.35), canvas.cover(below(canvas, line)))
    canvas.paint(near, canvas.cover(below(canvas, line + 0.045)))


RELIEF_PAINTERS = {Relief.MOUNTAINS: mountains, Relief.HILLS: hills, Relief.DUNES: dunes}
WATER_PAINTERS = {Water.LAKE: lake, Water.SEA: sea}
