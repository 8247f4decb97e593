"""Colours, and how the time of day lights them. RGB in 0..1."""

from __future__ import annotations

import torch
from torch import Tensor

from training.scenes import Colour, Ground, Relief, Sky, Time, Water

Rgb = tuple[float, float, float]

# Top, middle and horizon of each sky.
SKY_STOPS: dict[Sky, tuple[Rgb, Rgb, Rgb]] = {
    Sky.BLUE: ((0.12, 0.44, 0.90), (0.36, 0.66, 0.97), (0.80, 0.92, 1.00)),
    Sky.TURQUOISE: ((0.05, 0.55, 0.66), (0.30, 0.76, 0.76), (0.82, 0.96, 0.90)),
    Sky.HAZY: ((0.62, 0.72, 0.80), (0.76, 0.82, 0.86), (0.92, 0.93, 0.92)),
    Sky.ORANGE: ((0.56, 0.24, 0.42), (0.94, 0.46, 0.24), (1.00, 0.76, 0.36)),
    Sky.RED: ((0.34, 0.05, 0.20), (0.76, 0.14, 0.20), (1.00, 0.44, 0.26)),
    Sky.PURPLE: ((0.24, 0.12, 0.44), (0.54, 0.22, 0.58), (0.94, 0.48, 0.54)),
    Sky.PINK: ((0.72, 0.56, 0.80), (0.95, 0.70, 0.80), (1.00, 0.86, 0.84)),
    Sky.LAVENDER: ((0.47, 0.45, 0.80), (0.67, 0.62, 0.88), (0.90, 0.82, 0.94)),
    Sky.GOLDEN: ((0.60, 0.72, 0.82), (0.94, 0.84, 0.62), (1.00, 0.90, 0.66)),
    Sky.NAVY: ((0.03, 0.05, 0.17), (0.07, 0.12, 0.32), (0.16, 0.25, 0.50)),
    Sky.VIOLET: ((0.10, 0.03, 0.22), (0.22, 0.08, 0.38), (0.42, 0.20, 0.54)),
    Sky.AURORA: ((0.03, 0.09, 0.13), (0.05, 0.20, 0.22), (0.10, 0.34, 0.34)),
}

OBJECT_COLOURS: dict[Colour, Rgb] = {
    Colour.RED: (0.88, 0.14, 0.12),
    Colour.BLUE: (0.13, 0.36, 0.90),
    Colour.YELLOW: (0.99, 0.82, 0.12),
    Colour.GREEN: (0.08, 0.64, 0.30),
    Colour.WHITE: (0.97, 0.96, 0.94),
    Colour.PURPLE: (0.58, 0.20, 0.78),
}

# Land is tinted strongly, objects gently: a house must keep a colour that can be named.
LAND_TINT: dict[Time, Rgb] = {
    Time.DAY: (1.0, 1.0, 1.0),
    Time.SUNSET: (0.92, 0.64, 0.56),
    Time.NIGHT: (0.26, 0.32, 0.52),
    Time.DAWN: (0.98, 0.86, 0.88),
}
OBJECT_TINT: dict[Time, Rgb] = {
    Time.DAY: (1.0, 1.0, 1.0),
    Time.SUNSET: (1.0, 0.84, 0.78),
    Time.NIGHT: (0.64, 0.66, 0.78),
    Time.DAWN: (1.0, 0.93, 0.94),
}

# Far and near shade of each ground.
GROUND_SHADES: dict[Ground, tuple[Rgb, Rgb]] = {
    Ground.GRASS: ((0.56, 0.76, 0.42), (0.30, 0.56, 0.22)),
    Ground.SAND: ((0.94, 0.86, 0.66), (0.82, 0.70, 0.46)),
    Ground.SNOW: ((0.95, 0.97, 1.00), (0.80, 0.87, 0.96)),
}

# Light face, dark face and cap of each relief.
RELIEF_SHADES: dict[Relief, tuple[Rgb, Rgb, Rgb]] = {
    Relief.NONE: ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    Relief.MOUNTAINS: ((0.58, 0.64, 0.72), (0.40, 0.46, 0.56), (0.98, 0.99, 1.00)),
    Relief.HILLS: ((0.52, 0.70, 0.56), (0.32, 0.54, 0.40), (0.66, 0.80, 0.62)),
    Relief.DUNES: ((0.92, 0.76, 0.50), (0.76, 0.58, 0.36), (0.98, 0.86, 0.62)),
}

# Far and near shade of open water; a lake is tinted by the near one.
WATER_SHADES: dict[Water, tuple[Rgb, Rgb]] = {
    Water.NONE: ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    Water.LAKE: ((0.62, 0.80, 0.90), (0.26, 0.50, 0.68)),
    Water.SEA: ((0.20, 0.52, 0.76), (0.06, 0.30, 0.60)),
}

CLOUD_SHADES: dict[Time, tuple[Rgb, Rgb]] = {
    Time.DAY: ((1.00, 1.00, 1.00), (0.82, 0.88, 0.96)),
    Time.SUNSET: ((1.00, 0.72, 0.58), (0.80, 0.46, 0.50)),
    Time.NIGHT: ((0.34, 0.38, 0.58), (0.24, 0.27, 0.45)),
    Time.DAWN: ((1.00, 0.93, 0.92), (0.92, 0.78, 0.84)),
}

SUN_COLOURS: dict[Time, Rgb] = {
    Time.DAY: (1.00, 0.93, 0.52),
    Time.SUNSET: (1.00, 0.85, 0.42),
    Time.NIGHT: (0.96, 0.95, 0.86),
    Time.DAWN: (1.00, 0.95, 0.72),
}

ROOF: Rgb = (0.34, 0.22, 0.22)
DOOR: Rgb = (0.36, 0.22, 0.14)
TRUNK: Rgb = (0.46, 0.30, 0.20)
SAIL: Rgb = (0.98, 0.97, 0.94)
MAST: Rgb = (0.30, 0.22, 0.18)
BIRD: Rgb = (0.12, 0.12, 0.18)
PINE: tuple[Rgb, Rgb] = ((0.10, 0.40, 0.28), (0.17, 0.52, 0.36))
PALM: tuple[Rgb, Rgb] = ((0.13, 0.50, 0.24), (0.22, 0.62, 0.30))
ROUND_TREE: tuple[Rgb, Rgb] = ((0.24, 0.50, 0.16), (0.40, 0.66, 0.26))
WINDOW: dict[Time, Rgb] = {
    Time.DAY: (0.76, 0.90, 0.98),
    Time.SUNSET: (1.00, 0.88, 0.50),
    Time.NIGHT: (1.00, 0.86, 0.44),
    Time.DAWN: (0.88, 0.92, 0.96),
}


def tinted(colour: Rgb, tint: Rgb) -> Rgb:
    return (colour[0] * tint[0], colour[1] * tint[1], colour[2] * tint[2])


def lit_object(colour: Colour, time: Time) -> Rgb:
    """Colour of a house wall or a hull as the picture shows it at that time of day."""
    return tinted(OBJECT_COLOURS[colour], OBJECT_TINT[time])


def table(rows: list[Rgb], device: torch.device) -> Tensor:
    """Rows of colours as a tensor ``[len(rows), 3]``, to be indexed by class numbers."""
    return torch.tensor(rows, dtype=torch.float32, device=device)
