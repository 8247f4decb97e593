"""The words of vista's world: for each attribute value, the ways to say it."""

from __future__ import annotations

from functools import cache

TIME: dict[str, tuple[str, ...]] = {
    "day": (
        "by day",
        "at noon",
        "in daylight",
        "on a sunny day",
        "daytime",
        "midday",
        "on a bright day",
    ),
    "sunset": ("at sunset", "at dusk", "in the evening", "sunset", "evening light", "at sundown"),
    "night": ("at night", "by night", "night", "under the stars", "at midnight", "a starry night"),
    "dawn": ("at dawn", "at sunrise", "in the morning", "dawn", "early morning", "at daybreak"),
}

SKY: dict[str, tuple[str, ...]] = {
    "blue": ("blue", "bright blue"),
    "turquoise": ("turquoise", "teal"),
    "hazy": ("hazy", "grey", "gray", "misty"),
    "orange": ("orange", "fiery orange"),
    "red": ("red", "deep red", "crimson"),
    "purple": ("purple", "magenta"),
    "pink": ("pink", "rosy"),
    "lavender": ("lavender", "lilac"),
    "golden": ("golden", "pale gold"),
    "navy": ("navy", "dark blue", "navy blue"),
    "violet": ("violet", "dark violet"),
    "aurora": ("green aurora", "aurora"),
}

AURORA = ("aurora", "an aurora", "northern lights", "a green aurora")

RELIEF: dict[str, tuple[str, ...]] = {
    "none": ("flat land", "a flat horizon", "no mountains", "an open horizon"),
    "mountains": (
        "mountains",
        "snowy mountains",
        "snowy peaks",
        "tall mountains",
        "the alps",
        "rocky peaks",
    ),
    "hills": ("hills", "rolling hills", "gentle hills", "low hills"),
    "dunes": ("dunes", "sand dunes", "desert dunes", "a desert with dunes"),
}

WATER: dict[str, tuple[str, ...]] = {
    "none": ("no water", "dry land", "without water"),
    "lake": (
        "a lake",
        "a calm lake",
        "a still lake",
        "a mirror lake",
        "a quiet lake",
        "lake",
        "a pond",
    ),
    "sea": ("the sea", "the ocean", "the open sea", "a wide ocean", "sea", "ocean waves"),
}

GROUND: dict[str, tuple[str, ...]] = {
    "grass": ("grass", "green grass", "grassy ground", "a meadow", "a grassy field"),
    "sand": ("sand", "sandy ground", "a sandy beach", "a beach", "yellow sand"),
    "snow": (
        "snow",
        "snowy ground",
        "snow on the ground",
        "fresh snow",
        "a snowy field",
        "white snow",
    ),
}

TREES: dict[str, tuple[str, ...]] = {
    "none": ("no trees", "without trees"),
    "pines": ("pines", "pine trees", "fir trees", "firs", "conifers", "pine forest"),
    "palms": ("palms", "palm trees", "tropical palms", "coconut palms"),
    "round": ("round trees", "leafy trees", "oaks", "oak trees", "broad trees"),
}

TREE_SIDE: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "both": ("on both sides", "left and right", "on the left and the right"),
}

HOUSE = ("house", "cottage", "cabin", "hut", "small house", "home", "little house")
BOAT = ("boat", "sailboat", "sailing boat", "ship", "yacht", "small boat")

SIDE: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "on the left side", "at the left"),
    "centre": ("in the middle", "in the center", "in the centre"),
    "right": ("on the right", "on the right side", "at the right"),
}

CLOUDS: dict[str, tuple[str, ...]] = {
    "none": ("clear sky", "no clouds", "cloudless sky", "a cloudless sky"),
    "some": ("a few clouds", "two clouds", "few clouds", "scattered clouds"),
    "many": ("many clouds", "lots of clouds", "a cloudy sky", "cloudy sky", "a sky full of clouds"),
}

LIGHT: dict[str, tuple[str, ...]] = {
    "none": ("no sun or moon",),
    "sun": ("the sun", "a bright sun", "sun", "a round sun"),
    "moon": ("a full moon", "full moon", "the full moon", "a bright full moon"),
    "crescent": ("a crescent moon", "crescent moon", "a thin moon", "a thin crescent"),
}

BIRDS = ("birds", "a flock of birds", "flying birds", "birds in the sky", "seagulls", "some birds")

OPENINGS = (
    "a landscape", "landscape", "a picture of", "a drawing of", "an illustration of", "a view of",
    "flat illustration", "vector art", "a painting of", "scenery", "a poster of", "beautiful",
    "a photo of", "minimalist", "a scene with", "there is", "peaceful",
)  # fmt: skip

CONNECTORS = (
    "with",
    "and",
    "near",
    "by",
    "under",
    "behind",
    "over",
    "above",
    "in front of",
    "a",
    "the",
    "of",
)
PUNCTUATION = (",", ".", ";", "-", "!")


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can hold, sorted; each becomes one token."""
    phrases: list[str] = [*AURORA, *HOUSE, *BOAT, *BIRDS, *OPENINGS, *CONNECTORS]
    for table in (TIME, SKY, RELIEF, WATER, GROUND, TREES, TREE_SIDE, SIDE, CLOUDS, LIGHT):
        for choices in table.values():
            phrases += choices
    phrases += ["yellow", "green", "white", "red", "blue", "purple", "sky", "trees", "moon", "an"]
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))
