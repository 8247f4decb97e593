"""Colours read off the pixels where a house or a boat stands: no network decides them."""

from __future__ import annotations

import torch
from torch import Tensor

from training import palette
from training.judge import PLACES
from training.scenes import Colour, Side, Time

# Boxes (left, right, top, bottom) in object widths from the base point, where the object's own
# colour prevails, and the width of a mean object.
_BOXES: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "house": ((-0.38, 0.38, -0.42, -0.04),),
    "boat": ((-0.34, 0.34, 0.03, 0.18), (0.09, 0.24, -0.45, -0.10)),
}
_WIDTHS = {"house": 0.245, "boat": 0.19}
# Walls have a shaded side and hulls are darker than sails.
_SHADES = (1.0, 0.87)
_NEAR_ENOUGH = 0.30
_LEAST_SHARE = 0.12
NO_COLOUR = -1


def _others(time: Time) -> list[palette.Rgb]:
    """Colours inside the boxes that are not the object's: roof, door, panes."""
    tint = palette.OBJECT_TINT[time]
    return [
        palette.tinted(palette.ROOF, tint),
        palette.tinted(palette.DOOR, tint),
        palette.WINDOW[time],
    ]


def object_colour(picture: Tensor, name: str, x: float, y: float, time: Time) -> int:
    """Index of the colour that most pixels of the object's body are nearest to, or ``NO_COLOUR``.

    ``picture`` [3,H,W] in 0..1; ``x`` and ``y``: the object's base point as fractions.
    """
    _, high, wide = picture.shape
    size_px = _WIDTHS[name] * min(high, wide)
    pixels = []
    for left, right, top, bottom in _BOXES[name]:
        x0, x1 = (round(x * wide + side * size_px) for side in (left, right))
        y0, y1 = (round(y * high + side * size_px) for side in (top, bottom))
        part = picture[:, max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
        pixels.append(part.reshape(3, -1))
    found = torch.cat(pixels, dim=1).T.float().cpu()
    if found.shape[0] == 0:
        return NO_COLOUR
    lit = [palette.lit_object(colour, time) for colour in Colour]
    rows = [(r * s, g * s, b * s) for s in _SHADES for r, g, b in lit] + _others(time)
    distance = torch.cdist(found, torch.tensor(rows))
    nearest_distance, nearest = distance.min(dim=1)
    own = (nearest < len(_SHADES) * len(Colour)) & (nearest_distance < _NEAR_ENOUGH)
    if own.float().mean() < _LEAST_SHARE:
        return NO_COLOUR
    votes = torch.bincount(nearest[own] % len(Colour), minlength=len(Colour))
    return int(votes.argmax())


def object_colours(pictures: Tensor, places: Tensor, times: Tensor) -> dict[str, Tensor]:
    """``pictures`` [B,3,H,W], ``places`` [B,2,2] from the judge, ``times`` [B] class indices."""
    moments = list(Time)
    return {
        name: torch.tensor(
            [
                object_colour(
                    pictures[b],
                    name,
                    float(places[b, i, 0]),
                    float(places[b, i, 1]),
                    moments[int(times[b])],
                )
                for b in range(len(pictures))
            ]
        )
        for i, name in enumerate(PLACES)
    }


def side_of(x: Tensor) -> Tensor:
    """Class index of left, centre or right from an x fraction."""
    sides = list(Side)
    middle = torch.full_like(x, sides.index(Side.CENTRE), dtype=torch.int64)
    left = torch.full_like(middle, sides.index(Side.LEFT))
    right = torch.full_like(middle, sides.index(Side.RIGHT))
    return torch.where(x < 0.385, left, torch.where(x > 0.615, right, middle))
