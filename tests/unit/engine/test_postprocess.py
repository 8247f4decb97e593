"""From tensor to pixels, and what is no picture."""

from __future__ import annotations

import pytest
import torch

from rockiln.engine.postprocess import BadOutputError, check_latents, to_pixels


def test_values_are_scaled_clamped_and_rounded_half_to_even() -> None:
    values = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0, 2 * 2.5 / 255 - 1])
    picture = values.expand(1, 3, 2, 6)
    pixels = to_pixels(picture)
    assert pixels.shape == (2, 6, 3)
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255, 2]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_no_number_spoils_the_picture(value: float) -> None:
    picture = torch.rand((1, 3, 8, 8))
    picture[0, 1, 3, 3] = value
    with pytest.raises(BadOutputError, match="not numbers"):
        to_pixels(picture)
    with pytest.raises(BadOutputError, match="not numbers"):
        check_latents(picture)


@pytest.mark.parametrize("colour", [(-1.0, -1.0, -1.0), (0.2, -0.4, 0.9)])
def test_one_colour_is_no_picture(colour: tuple[float, float, float]) -> None:
    picture = torch.tensor(colour)[None, :, None, None].expand(1, 3, 8, 8)
    with pytest.raises(BadOutputError, match="one flat colour"):
        to_pixels(picture + 0.001 * torch.rand((1, 3, 8, 8)))


def test_two_colours_are_a_picture() -> None:
    picture = torch.zeros((1, 3, 8, 8))
    picture[..., 4:] = 0.1
    assert to_pixels(picture).std() > 0


def test_sound_latents_pass() -> None:
    check_latents(torch.randn((1, 4, 8, 8)))
