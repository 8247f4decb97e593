"""Jobs by the words of their request."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import ColumnElement, or_

from rockiln.store.tables import JobRow

# What a word without a name is looked for in, and what a name before a colon may be.
_ANYWHERE = ("prompt", "negative_prompt", "model", "scheduler", "seed")
_NAMED = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "cfg": "guidance_scale",
    **{name: name for name in (*_ANYWHERE, "width", "height", "format")},
}
_WORDS_MAX = 12


def matching(words: str) -> Iterator[ColumnElement[bool]]:
    """One condition a word; all must hold. ``seed:7`` names a parameter, ``512x768`` is a size."""
    for word in words.split()[:_WORDS_MAX]:
        name, colon, value = word.partition(":")
        if colon and value and name.lower() in _NAMED:
            yield _equal(_NAMED[name.lower()], value)
        elif (size := word.lower().partition("x"))[0].isdecimal() and size[2].isdecimal():
            yield _equal("width", size[0]) & _equal("height", size[2])
        else:
            yield or_(*(_text(field).icontains(word, autoescape=True) for field in _ANYWHERE))


def _text(name: str) -> ColumnElement[str]:
    text: ColumnElement[str] = JobRow.parameters[name].as_string()
    return text


def _equal(name: str, value: str) -> ColumnElement[bool]:
    if name in {"prompt", "negative_prompt", "model", "scheduler"}:
        return _text(name).icontains(value, autoescape=True)
    texts = {value}
    if name == "guidance_scale" and value.isdecimal():
        texts.add(f"{value}.0")  # as a decimal is stored
    return _text(name).in_(texts)
