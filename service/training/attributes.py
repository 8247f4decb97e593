"""The attributes that captions name, as class indices: one table for captions, heads and judge."""

from __future__ import annotations

from enum import StrEnum

from training.scenes import (
    Clouds,
    Colour,
    Ground,
    LightKind,
    Relief,
    Scene,
    Side,
    Sky,
    Time,
    TreeKind,
    TreeSide,
    Water,
)


class Presence(StrEnum):
    ABSENT = "absent"
    PRESENT = "present"


# Order matters: it is the order of the columns in every label tensor.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "time": tuple(Time),
    "sky": tuple(Sky),
    "relief": tuple(Relief),
    "water": tuple(Water),
    "ground": tuple(Ground),
    "trees": tuple(TreeKind),
    "tree_side": tuple(TreeSide),
    "house": tuple(Presence),
    "house_colour": tuple(Colour),
    "house_side": tuple(Side),
    "boat": tuple(Presence),
    "boat_colour": tuple(Colour),
    "boat_side": tuple(Side),
    "clouds": tuple(Clouds),
    "light": tuple(LightKind),
    "light_side": tuple(Side),
    "birds": tuple(Presence),
}

UNKNOWN = -1
"""Label of an attribute that a scene does not have or a caption does not say."""


def presence(thing: object | None) -> str:
    return Presence.ABSENT if thing is None else Presence.PRESENT


def scene_attributes(scene: Scene) -> dict[str, str]:
    """Every attribute that the scene has, by name; the colour of a house that is not there is left
    out.
    """
    found: dict[str, str] = {
        "time": scene.time,
        "sky": scene.sky,
        "relief": scene.relief,
        "water": scene.water,
        "ground": scene.ground,
        "trees": scene.trees.kind if scene.trees else TreeKind.NONE,
        "house": presence(scene.house),
        "boat": presence(scene.boat),
        "clouds": scene.clouds,
        "light": scene.light.kind if scene.light else LightKind.NONE,
        "birds": presence(scene.birds),
    }
    if scene.trees:
        found["tree_side"] = scene.trees.side
    if scene.light:
        found["light_side"] = scene.light.side
    for name, placed in (("house", scene.house), ("boat", scene.boat)):
        if placed:
            found[f"{name}_colour"] = placed.colour
            found[f"{name}_side"] = placed.side
    return found


def labels(said: dict[str, str]) -> list[int]:
    """Class indices in the order of ``ATTRIBUTES``; ``UNKNOWN`` where nothing is said."""
    return [
        values.index(said[name]) if name in said else UNKNOWN for name, values in ATTRIBUTES.items()
    ]
