"""What stands in the landscape: trees, house, boat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training import palette
from training.canvas import Canvas, circle, colours, column, half_plane, uniforms
from training.draw_sky import by_time
from training.scene_batch import SceneBatch
from training.scenes import Colour, Time, TreeKind, TreeSide

_SLOTS = 3
"""Trees at one edge, at most."""

_SIDES = list(TreeSide)


def _lit(batch: SceneBatch, colour: palette.Rgb) -> Tensor:
    tint = by_time(batch, palette.OBJECT_TINT)
    return torch.tensor(colour, device=tint.device).view(1, 3, 1, 1) * tint


def _foliage(batch: SceneBatch, shades: tuple[palette.Rgb, palette.Rgb]) -> tuple[Tensor, Tensor]:
    tint = by_time(batch, palette.LAND_TINT) * 0.8 + 0.2 * by_time(batch, palette.OBJECT_TINT)
    dark, light = (torch.tensor(c, device=tint.device).view(1, 3, 1, 1) * tint for c in shades)
    return dark, light


@dataclass(frozen=True)
class _Tree:
    """One tree of each scene: pixel offsets from its foot, its height, 1 where it stands at all."""

    dx: Tensor
    dy: Tensor
    tall: Tensor
    there: Tensor


def _pine(canvas: Canvas, tree: _Tree, b: SceneBatch) -> None:
    dx, dy, tall, there = tree.dx, tree.dy, tree.tall, tree.there
    dark, light = _foliage(b, palette.PINE)
    trunk = canvas.cover(
        torch.maximum(dx.abs() - 0.035 * tall, torch.maximum(dy, -dy - 0.2 * tall))
    )
    canvas.paint(_lit(b, palette.TRUNK) * 0.7, there * trunk)
    shape = torch.full_like(dx + dy, 10.0)
    for top, bottom, spread in ((-1.0, -0.58, 0.17), (-0.80, -0.34, 0.23), (-0.58, -0.10, 0.29)):
        rise = bottom - top
        tier = half_plane(dx.abs(), dy - top * tall, spread * tall, rise * tall)
        shape = torch.minimum(shape, torch.maximum(tier, dy - bottom * tall))
    canvas.paint(
        torch.lerp(dark, light, canvas.cover(0.01 * tall - dx)), there * canvas.cover(shape)
    )


def _round(canvas: Canvas, tree: _Tree, b: SceneBatch) -> None:
    dx, dy, tall, there = tree.dx, tree.dy, tree.tall, tree.there
    dark, light = _foliage(b, palette.ROUND_TREE)
    trunk = canvas.cover(torch.maximum(dx.abs() - 0.04 * tall, torch.maximum(dy, -dy - 0.6 * tall)))
    canvas.paint(_lit(b, palette.TRUNK), there * trunk)
    crown = torch.full_like(dx + dy, 10.0)
    glow = crown
    for ox, oy, r in ((-0.16, -0.60, 0.22), (0.17, -0.60, 0.21), (0.0, -0.77, 0.24)):
        crown = torch.minimum(crown, circle(dx - ox * tall, dy - oy * tall, r * tall))
        glow = torch.minimum(
            glow, circle(dx - (ox + 0.05) * tall, dy - (oy - 0.05) * tall, 0.6 * r * tall)
        )
    canvas.paint(dark, there * canvas.cover(crown))
    canvas.paint(light, there * canvas.cover(torch.maximum(glow, crown)))


def _palm(canvas: Canvas, tree: _Tree, b: SceneBatch) -> None:
    dx, dy, tall, there = tree.dx, tree.dy, tree.tall, tree.there
    dark, light = _foliage(b, palette.PALM)
    # dx is signed so that the trunk leans towards the middle of the picture.
    up = (-dy / tall).clamp(0, 1)
    lean = dx - 0.16 * tall * up * up
    trunk = torch.maximum(
        lean.abs() - (0.040 - 0.014 * up) * tall, torch.maximum(dy, -dy - 0.84 * tall)
    )
    canvas.paint(_lit(b, palette.TRUNK), there * canvas.cover(trunk))
    hx, hy = dx - 0.16 * tall, dy + 0.84 * tall
    for reach, lift, drop, tone in (
        (0.34, 0.10, 0.34, 0.0),
        (0.38, 0.36, 0.26, 1.0),
        (0.22, 0.62, 0.16, 0.4),
    ):
        t = (hx.abs() / (reach * tall)).clamp(0, 1)
        arc = hy + tall * reach * (lift * 2.4 * t * (1 - 0.45 * t)) - tall * drop * t * t
        thick = tall * 0.075 * (t + 0.12) * (1 - t) * 2.2 + 0.002
        frond = torch.maximum(0.75 * arc.abs() - thick, hx.abs() - reach * tall)
        canvas.paint(torch.lerp(dark, light, tone), there * canvas.cover(frond))


_TREE_PAINTERS = {TreeKind.PINES: _pine, TreeKind.PALMS: _palm, TreeKind.ROUND: _round}


def trees(canvas: Canvas, batch: SceneBatch, kind: TreeKind) -> None:
    """Trees of one kind, farther and smaller ones first."""
    u = uniforms(batch.seeds + 1212, 6 * _SLOTS)
    side, count = batch.kind("tree_side"), batch.number("tree_count")
    for edge, (mirror, other) in enumerate(((1.0, TreeSide.RIGHT), (-1.0, TreeSide.LEFT))):
        on_side = side != _SIDES.index(other)
        for slot in range(_SLOTS):
            v = u[:, 9 * edge + 3 * slot : 9 * edge + 3 * slot + 3]
            there = column((on_side & (count > slot)).to(u.dtype))
            inset = column((0.055, 0.145, 0.005)[slot] + 0.03 * (v[:, 0] - 0.5)) * max(
                1.0, canvas.width
            )
            base = canvas.height * column(
                0.885 + (0.045, 0.0, 0.075)[slot] + 0.02 * (v[:, 1] - 0.5)
            )
            tall = column((0.36, 0.27, 0.32)[slot] + 0.06 * (v[:, 2] - 0.5))
            if kind is TreeKind.PALMS:
                tall = tall * 1.15
            x = inset if mirror > 0 else canvas.width - inset
            dx, dy = (canvas.x - x) * mirror, canvas.y - base
            _TREE_PAINTERS[kind](canvas, _Tree(dx, dy, tall, there), batch)


def _object_colour(batch: SceneBatch, name: str) -> Tensor:
    time = batch.kind("time")
    rows = palette.table(
        [palette.lit_object(c, t) for t in Time for c in Colour], batch.rows.device
    )
    return colours(rows[time * len(Colour) + batch.kind(name)])


def house(canvas: Canvas, batch: SceneBatch) -> None:
    """Walls 0.84 x 0.44 of the width, so that the centre of the wall colour is at y - 0.22 size."""
    size = column(batch.number("house_size"))
    x = (canvas.x - column(batch.number("house_x")) * canvas.width) / size
    y = (canvas.y - column(batch.number("house_y")) * canvas.height) / size
    part = Canvas(canvas.rgb, canvas.weight, x, y, canvas.pixel, canvas.width, canvas.height)

    def box(left: float, right: float, top: float, bottom: float) -> Tensor:
        dx = torch.maximum(left - x, x - right) * size
        dy = torch.maximum(top - y, y - bottom) * size
        return canvas.cover(dx) * canvas.cover(dy)

    wall = _object_colour(batch, "house_colour")
    part.paint(_lit(batch, palette.ROOF) * 0.8, box(0.16, 0.27, -0.80, -0.5), named=1.0)
    part.paint(
        torch.lerp(wall, wall * 0.84, canvas.cover((0.2 - x) * size)),
        box(-0.42, 0.42, -0.45, 0.0),
        named=1.0,
    )
    slope = half_plane(x.abs() - 0.52, y + 0.42, -0.22, -0.30).neg() * size
    roof = torch.maximum(slope, torch.maximum(y + 0.42, -0.74 - y) * size)
    part.paint(_lit(batch, palette.ROOF), canvas.cover(roof), named=1.0)
    part.paint(_lit(batch, palette.DOOR), box(-0.08, 0.08, -0.28, 0.0), named=1.0)
    window = by_time(batch, palette.WINDOW)
    frame = _lit(batch, palette.SAIL) * 0.95
    for left in (-0.34, 0.19):
        part.paint(frame, box(left - 0.02, left + 0.17, -0.34, -0.15))
        part.paint(window, box(left, left + 0.15, -0.32, -0.17))


def boat(canvas: Canvas, batch: SceneBatch) -> None:
    """Hull and main sail in the boat's colour; the sail's middle is at y - 0.36 size, x + 0.16
    size.
    """
    size = column(batch.number("boat_size"))
    x = (canvas.x - column(batch.number("boat_x")) * canvas.width) / size
    y = (canvas.y - column(batch.number("boat_y")) * canvas.height) / size
    colour = _object_colour(batch, "boat_colour")
    shadow = torch.maximum((y - 0.24).abs() * size - 0.006, (x.abs() - 0.42) * size)
    canvas.paint(colour * 0.45, 0.5 * canvas.cover(shadow))
    mast = torch.maximum((x - 0.02).abs() - 0.016, torch.maximum(-1.04 - y, y)) * size
    canvas.paint(_lit(batch, palette.MAST), canvas.cover(mast), named=1.0)
    # Sails: a vertical edge at the mast, a foot above the hull, a slanting outer edge.
    main = torch.maximum(
        0.05 - x, torch.maximum(y + 0.07, half_plane(x - 0.05, y + 1.0, 0.44, 0.92))
    )
    jib = torch.maximum(
        x + 0.01, torch.maximum(y + 0.07, half_plane(-x - 0.01, y + 0.86, 0.36, 0.78))
    )
    canvas.paint(_lit(batch, palette.SAIL) * 0.96, canvas.cover(jib * size), named=1.0)
    canvas.paint(colour, canvas.cover(main * size), named=1.0)
    side = half_plane(x.abs() - 0.52, y, -0.15, 0.22)
    hull = torch.maximum(side, torch.maximum(-y, y - 0.21))
    canvas.paint(colour * 0.9, canvas.cover(hull * size), named=1.0)
