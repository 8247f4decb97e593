"""Textual inversions by name in a text: a word that stands for vectors. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

# The prefix is ComfyUI's: with it a name is meant, and one that nobody knows is an error.
_MEANT = re.compile(r"(?<!\w)embedding:([^\s,:()\[\]<>]+)", re.IGNORECASE)


def names_in(texts: Iterable[str], known: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    """Those of ``known`` that the texts name, in order, and what ``embedding:`` names in vain."""
    found: dict[str, None] = {}
    rest = []
    names = list(known)
    for text in texts:

        def note(name: str) -> str:
            found[name] = None
            return ""

        rest += _MEANT.findall(replace_names(text, names, note))
    return tuple(found), rest


def replace_names(text: str, names: Iterable[str], by: Callable[[str], str]) -> str:
    """The text with every name, a word or words of it in any case, given to ``by``."""
    spelt = {name.lower(): name for name in sorted(names, reverse=True)}
    if not spelt:
        return text
    # The longest first: ``ink-wash`` is not ``ink``.
    words = "|".join(map(re.escape, sorted(spelt, key=len, reverse=True)))
    # In any case of ASCII: elsewhere a letter may have two, such as the Kelvin sign.
    pattern = re.compile(rf"(?<!\w)(?ai:(?:embedding:)?({words}))(?!\w)")
    return pattern.sub(lambda match: by(spelt[match[1].lower()]), text)
