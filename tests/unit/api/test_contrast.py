"""Text on the pages can be read, in light and in dark (WCAG 2.2 AA)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rockiln.web

STYLE = (Path(rockiln.web.__file__).parent / "static" / "style.css").read_text()
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): (#\w{6});", block))
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
)
TEXT, EDGE = 4.5, 3.0
PAIRS = [
    *(
        (colour, ground, TEXT)
        for colour in ("text", "soft", "accent", "bad")
        for ground in ("ground", "panel")
    ),
    *((colour, f"{colour}-ground", TEXT) for colour in ("good", "bad", "busy")),
    ("text", "bad-ground", TEXT),
    ("accent", "bad-ground", TEXT),
    ("text", "rule", TEXT),
    ("accent-text", "accent", TEXT),
    ("line", "panel", EDGE),
    ("line", "ground", EDGE),
]


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("colour", "ground", "least"), PAIRS)
def test_colours_that_meet_differ_enough(
    theme: dict[str, str], colour: str, ground: str, least: float
) -> None:
    high, low = sorted((luminance(theme[colour]), luminance(theme[ground])), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= least
