"""Scenes as plain data: what a picture shows, before a pixel is drawn or a word is said.

Everything that a caption can name is a field. What no caption names (the outline of a ridge, the
place of a cloud) follows from ``shape_seed``, so that a scene stays small and its picture is fixed.

Places are fractions of the picture's width (``x``) and height (``y``); sizes are fractions of its
shorter side. y grows downwards.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar


class Time(StrEnum):
    DAY = "day"
    SUNSET = "sunset"
    NIGHT = "night"
    DAWN = "dawn"


class Sky(StrEnum):
    BLUE = "blue"
    TURQUOISE = "turquoise"
    HAZY = "hazy"
    ORANGE = "orange"
    RED = "red"
    PURPLE = "purple"
    PINK = "pink"
    LAVENDER = "lavender"
    GOLDEN = "golden"
    NAVY = "navy"
    VIOLET = "violet"
    AURORA = "aurora"


SKIES: dict[Time, tuple[Sky, ...]] = {
    Time.DAY: (Sky.BLUE, Sky.TURQUOISE, Sky.HAZY),
    Time.SUNSET: (Sky.ORANGE, Sky.RED, Sky.PURPLE),
    Time.DAWN: (Sky.PINK, Sky.LAVENDER, Sky.GOLDEN),
    Time.NIGHT: (Sky.NAVY, Sky.VIOLET, Sky.AURORA),
}


class Relief(StrEnum):
    NONE = "none"
    MOUNTAINS = "mountains"
    HILLS = "hills"
    DUNES = "dunes"


class Water(StrEnum):
    NONE = "none"
    LAKE = "lake"
    SEA = "sea"


class Ground(StrEnum):
    GRASS = "grass"
    SAND = "sand"
    SNOW = "snow"


class TreeKind(StrEnum):
    NONE = "none"
    PINES = "pines"
    PALMS = "palms"
    ROUND = "round"


class TreeSide(StrEnum):
    LEFT = "left"
    RIGHT = "right"
    BOTH = "both"


class Side(StrEnum):
    LEFT = "left"
    CENTRE = "centre"
    RIGHT = "right"


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"
    YELLOW = "yellow"
    GREEN = "green"
    WHITE = "white"
    PURPLE = "purple"


class Clouds(StrEnum):
    NONE = "none"
    SOME = "some"
    MANY = "many"


class LightKind(StrEnum):
    NONE = "none"
    SUN = "sun"
    MOON = "moon"
    CRESCENT = "crescent"


CLOUD_COUNTS: dict[Clouds, int] = {Clouds.NONE: 0, Clouds.SOME: 2, Clouds.MANY: 6}


@dataclass(frozen=True, slots=True)
class Trees:
    """A group of one to three trees at the left edge, the right edge, or both."""

    kind: TreeKind
    side: TreeSide
    count: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A house or a boat: its colour, the centre of its base line, and its width."""

    colour: Colour
    side: Side
    x: float
    y: float
    size: float


@dataclass(frozen=True, slots=True)
class Light:
    """Sun or moon: the centre of its disc and its radius."""

    kind: LightKind
    side: Side
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Flock:
    """The middle of five birds."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Scene:
    time: Time
    sky: Sky
    relief: Relief
    water: Water
    ground: Ground
    trees: Trees | None
    house: Placed | None
    boat: Placed | None
    clouds: Clouds
    light: Light | None
    birds: Flock | None
    horizon: float
    shore: float
    shape_seed: int


# Object centres per side. The gaps between the ranges keep "left" and "centre" apart for a reader.
_SIDE_RANGES: dict[Side, tuple[float, float]] = {
    Side.LEFT: (0.20, 0.32),
    Side.CENTRE: (0.45, 0.55),
    Side.RIGHT: (0.68, 0.80),
}

_T = TypeVar("_T")


def _weighted(rng: random.Random, weights: dict[_T, float]) -> _T:
    return rng.choices(tuple(weights), tuple(weights.values()))[0]


def _place(rng: random.Random, side: Side) -> float:
    low, high = _SIDE_RANGES[side]
    return rng.uniform(low, high)


def _ground(rng: random.Random, relief: Relief) -> Ground:
    if rng.random() < 0.25:
        return rng.choice(tuple(Ground))
    likely: dict[Relief, dict[Ground, float]] = {
        Relief.DUNES: {Ground.SAND: 0.8, Ground.GRASS: 0.2},
        Relief.HILLS: {Ground.GRASS: 0.6, Ground.SAND: 0.2, Ground.SNOW: 0.2},
        Relief.MOUNTAINS: {Ground.GRASS: 0.45, Ground.SAND: 0.15, Ground.SNOW: 0.4},
        Relief.NONE: {Ground.GRASS: 0.4, Ground.SAND: 0.35, Ground.SNOW: 0.25},
    }
    return _weighted(rng, likely[relief])


def _trees(rng: random.Random, ground: Ground) -> Trees | None:
    if rng.random() < 0.25:
        return None
    likely: dict[Ground, dict[TreeKind, float]] = {
        Ground.GRASS: {TreeKind.PINES: 0.35, TreeKind.PALMS: 0.2, TreeKind.ROUND: 0.45},
        Ground.SAND: {TreeKind.PINES: 0.2, TreeKind.PALMS: 0.6, TreeKind.ROUND: 0.2},
        Ground.SNOW: {TreeKind.PINES: 0.6, TreeKind.PALMS: 0.15, TreeKind.ROUND: 0.25},
    }
    side = rng.choice(tuple(TreeSide))
    return Trees(_weighted(rng, likely[ground]), side, rng.randint(1, 3))


def _light(rng: random.Random, time: Time, relief: Relief) -> Light | None:
    if rng.random() < 0.2:
        return None
    kind = LightKind.SUN
    if time is Time.NIGHT:
        kind = rng.choice((LightKind.MOON, LightKind.CRESCENT))
    side = rng.choice(tuple(Side))
    # A low sun needs an open horizon: behind a ridge it would be named and not seen.
    lowest = 0.38 if relief is Relief.NONE and time is not Time.DAY else 0.22
    radius = rng.uniform(0.055, 0.075)
    return Light(kind, side, _place(rng, side), rng.uniform(0.12, lowest), radius)


def _boat_side(rng: random.Random, house_side: Side, trees: Trees | None) -> Side:
    """Never the house's side, which would hide the boat; seldom behind trees."""
    free = [side for side in Side if side is not house_side]
    if trees and rng.random() < 0.7:
        covered = {TreeSide.LEFT: ("left",), TreeSide.RIGHT: ("right",)}.get(
            trees.side, ("left", "right")
        )
        free = [side for side in free if side not in covered] or free
    return rng.choice(free)


def sample_scene(rng: random.Random) -> Scene:
    """Draw one scene at random; all randomness comes from ``rng``."""
    time = rng.choice(tuple(Time))
    relief = rng.choice(tuple(Relief))
    water = rng.choice(tuple(Water))
    ground = _ground(rng, relief)
    horizon = rng.uniform(0.50, 0.57)
    shore = rng.uniform(0.79, 0.84)
    house: Placed | None = None
    boat: Placed | None = None
    trees = _trees(rng, ground)
    house_side = rng.choice(tuple(Side))
    boat_side = _boat_side(rng, house_side, trees)
    if rng.random() < 0.5:
        house = Placed(
            colour=rng.choice(tuple(Colour)),
            side=house_side,
            x=_place(rng, house_side),
            y=rng.uniform(0.88, 0.92),
            size=rng.uniform(0.22, 0.27),
        )
    if water is not Water.NONE and rng.random() < 0.6:
        boat = Placed(
            colour=rng.choice(tuple(Colour)),
            side=boat_side,
            x=_place(rng, boat_side),
            y=rng.uniform(0.66, 0.71),
            size=rng.uniform(0.17, 0.21),
        )
    birds: Flock | None = None
    if time is not Time.NIGHT and rng.random() < 0.35:
        birds = Flock(rng.uniform(0.2, 0.8), rng.uniform(0.14, 0.30))
    return Scene(
        time=time,
        sky=rng.choice(SKIES[time]),
        relief=relief,
        water=water,
        ground=ground,
        trees=trees,
        house=house,
        boat=boat,
        clouds=rng.choice(tuple(Clouds)),
        light=_light(rng, time, relief),
        birds=birds,
        horizon=horizon,
        shore=shore,
        shape_seed=rng.getrandbits(31),
    )


def scene_at(seed: int, index: int) -> Scene:
    """Scene number ``index`` of the stream ``seed``: the same on every machine and in any order."""
    return sample_scene(random.Random((seed << 32) ^ index))
