"""What terminals are sent, read back the way they read it."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from rockiln.cli.terminal_picture import Protocol, drawn, protocol_of
from rockiln.store.records import Job, Lease
from support.front import ServedFront


@pytest.fixture
def picture() -> Image.Image:
    """Left red, right blue, with noise: more than one chunk, and a last band that is not whole."""
    noise = Image.effect_noise((101, 75), 60).convert("RGB")
    noise.paste((255, 0, 0), (0, 0, 30, 75))
    noise.paste((0, 0, 255), (70, 0, 101, 75))
    return noise


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-kitty", "TMUX": "x"}, None),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"LC_TERMINAL": "iTerm2", "TERM": "xterm-256color"}, "iterm2"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "foot-extra"}, "sixel"),
        ({"TERM": "dumb"}, None),
    ],
)
def test_the_environment_says_what_a_terminal_can(
    environment: dict[str, str], protocol: Protocol | None
) -> None:
    assert protocol_of(environment) == protocol


def test_kitty_gets_the_whole_picture_in_chunks(picture: Image.Image) -> None:
    told = drawn(picture, "kitty")
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", told)
    assert "".join(f"\x1b_G{head};{data}\x1b\\" for head, data in parts) == told
    assert len(parts) > 1
    assert all(len(data) <= 4096 for _, data in parts)
    assert [head[-3:] for head, _ in parts] == ["m=1"] * (len(parts) - 1) + ["m=0"]
    assert same(b"".join(base64.b64decode(data) for _, data in parts), picture)


def test_iterm2_gets_the_whole_picture(picture: Image.Image) -> None:
    told = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+):(.*)\x07", drawn(picture, "iterm2"))
    assert told is not None
    data = base64.b64decode(told[2])
    assert len(data) == int(told[1])
    assert same(data, picture)


def test_sixels_say_the_colour_of_every_pixel(picture: Image.Image) -> None:
    told = re.fullmatch(r'\x1bPq"1;1;101;75(.*)\x1b\\', drawn(picture, "sixel"))
    assert told is not None
    palette: dict[str, tuple[int, ...]] = {}
    seen: dict[tuple[int, int], tuple[int, ...]] = {}
    colour, x, top = "0", 0, 0
    for define, use, count, char, move in re.findall(
        r"#(\d+;2;\d+;\d+;\d+)|#(\d+)|!(\d+)([?-~])|([$-])", told[1]
    ):
        if define:
            number, _, *parts = define.split(";")
            palette[number] = tuple(map(int, parts))
        elif use:
            colour = use
        elif move:
            x, top = 0, top + (6 if move == "-" else 0)
        else:
            for _ in range(int(count)):
                bits = ord(char) - 63
                for row in range(6):
                    if bits >> row & 1:
                        assert seen.setdefault((x, top + row), palette[colour]) == palette[colour]
                x += 1  # noqa: SIM113 (a carriage return resets it)
    assert len(seen) == 101 * 75
    assert seen[5, 74] == (100, 0, 0)
    assert seen[100, 0] == (0, 0, 100)


def same(data: bytes, picture: Image.Image) -> bool:
    return Image.open(io.BytesIO(data)).tobytes() == picture.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "terminal", "shown"),
    [([], True, True), (["--no-picture"], True, False), ([], False, False)],
)
def test_a_made_picture_is_shown_where_it_can_be(
    served: ServedFront, tmp_path: Path, options: list[str], terminal: bool, shown: bool
) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")

    def finish(leased: tuple[Lease, Job]) -> None:
        served.hand.finish(leased, content=file.getvalue())

    leader, follower = os.openpty()
    with served.hand.working(finish):
        ended = subprocess.run(
            [sys.executable, "-m", "rockiln", "generate", "a boat", "-o", "boat.png", *options],
            env={**served.environment(), "TERM": "xterm-kitty"},
            cwd=tmp_path,
            stdout=follower if terminal else subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=True,
            timeout=60,
        )
    os.close(follower)
    out = os.read(leader, 65536) if terminal else ended.stdout
    os.close(leader)
    assert (b"\x1b_Ga=T" in out) is shown
    assert out.strip().endswith(b"boat.png")
