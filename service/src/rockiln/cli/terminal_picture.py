"""Pictures in terminals that can show them: kitty's protocol, iTerm2's, or sixels."""

# ruff: noqa: PLC0415 (imports wait until they are needed: probes must start fast)

from __future__ import annotations

import base64
import io
import itertools
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image as PictureImage

Protocol = Literal["kitty", "iterm2", "sixel"]
_SIDE_MAX_PX = 400
_CHUNK_CHARS = 4096
_SIXEL_ROWS = 6
_BY_PROGRAM: dict[str, Protocol] = {
    "ghostty": "kitty",
    "iTerm.app": "iterm2",
    "mintty": "iterm2",
    "WezTerm": "iterm2",
}
_BY_TERM: dict[str, Protocol] = {
    "xterm-kitty": "kitty",
    "xterm-ghostty": "kitty",
    "foot": "sixel",
    "mlterm": "sixel",
    "yaft-256color": "sixel",
}


def protocol_of(environment: Mapping[str, str]) -> Protocol | None:
    """What a terminal with these variables can show pictures by; None if nothing says so."""
    if environment.keys() & {"TMUX", "STY"}:
        return None  # they pass such sequences on only where they were told to
    if "KITTY_WINDOW_ID" in environment:
        return "kitty"
    if environment.get("LC_TERMINAL") == "iTerm2":  # which ssh hands on
        return "iterm2"
    program = _BY_PROGRAM.get(environment.get("TERM_PROGRAM", ""))
    term = environment.get("TERM", "")
    return program or _BY_TERM.get(term.removesuffix("-extra").removesuffix("-direct"))


def show_picture(data: bytes, environment: Mapping[str, str]) -> None:
    """Draws a picture's file at the cursor, small, on a terminal that can; else nothing."""
    protocol = protocol_of(environment)
    if protocol is None or not sys.stdout.isatty():
        return
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            small = image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        print(f"rockiln: the picture cannot be shown: {error}", file=sys.stderr)
        return
    small.thumbnail((_SIDE_MAX_PX, _SIDE_MAX_PX))
    sys.stdout.write(drawn(small, protocol) + "\n")
    sys.stdout.flush()


def drawn(image: PictureImage, protocol: Protocol) -> str:
    """The sequence that makes a terminal draw an RGB picture.

    Sources: sw.kovidgoyal.net/kitty/graphics-protocol, iterm2.com/documentation-images.html,
    vt100.net/docs/vt3xx-gp/chapter14.html.
    """
    if protocol == "sixel":
        return _sixels(image)
    file = io.BytesIO()
    image.save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode("ascii")
    if protocol == "iterm2":
        return f"\x1b]1337;File=inline=1;size={len(file.getvalue())}:{text}\a"
    chunks = [text[at : at + _CHUNK_CHARS] for at in range(0, len(text), _CHUNK_CHARS)]
    heads = ["a=T,f=100,q=2,", *[""] * (len(chunks) - 1)]
    more = [*[1] * (len(chunks) - 1), 0]
    return "".join(
        f"\x1b_G{head}m={follows};{chunk}\x1b\\"
        for head, follows, chunk in zip(heads, more, chunks, strict=True)
    )


def _sixels(image: PictureImage) -> str:
    """Bands of six rows; in each, one line of characters for every colour it holds."""
    few = image.quantize(256)
    palette = few.getpalette() or []
    colours = [
        f"#{number};2;" + ";".join(str(round(value / 2.55)) for value in palette[at : at + 3])
        for number, at in enumerate(range(0, len(palette), 3))
    ]
    pixels, width, height = few.tobytes(), few.width, few.height
    bands = [
        "$".join(_band(pixels[top * width : (top + _SIXEL_ROWS) * width], width))
        for top in range(0, height, _SIXEL_ROWS)
    ]
    return f'\x1bPq"1;1;{width};{height}{"".join(colours)}{"-".join(bands)}\x1b\\'


def _band(pixels: bytes, width: int) -> Iterator[str]:
    lines: dict[int, bytearray] = {}
    for place, colour in enumerate(pixels):
        lines.setdefault(colour, bytearray(width))[place % width] |= 1 << place // width
    for colour, bits in lines.items():
        runs = ((chr(63 + value), len(list(run))) for value, run in itertools.groupby(bits))
        yield f"#{colour}" + "".join(f"!{count}{char}" for char, count in runs)
