"""A scene's attributes can be read off its picture, pixel by pixel."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from training import palette
from training.draw import draw
from training.picture_pool import PicturePool, scene_batch
from training.pixel_tests import object_colour
from training.scenes import (
    SKIES,
    Clouds,
    Colour,
    Flock,
    Ground,
    Light,
    LightKind,
    Placed,
    Relief,
    Scene,
    Side,
    Sky,
    Time,
    TreeKind,
    Trees,
    TreeSide,
    Water,
    scene_at,
)

SIZE = 128

EMPTY = Scene(
    time=Time.DAY,
    sky=Sky.BLUE,
    relief=Relief.NONE,
    water=Water.NONE,
    ground=Ground.GRASS,
    trees=None,
    house=None,
    boat=None,
    clouds=Clouds.NONE,
    light=None,
    birds=None,
    horizon=0.54,
    shore=0.82,
    shape_seed=7,
)


def one(scene: Scene, height: int = SIZE, width: int = SIZE) -> Tensor:
    return draw([scene], height, width)[0]


def difference(a: Scene, b: Scene) -> Tensor:
    """Where two scenes' pictures differ visibly, [H,W] of bools."""
    return (one(a) - one(b)).abs().amax(dim=0) > 0.08


def middle_of(mask: Tensor) -> tuple[float, float]:
    """Mean x and y of a mask's pixels, as fractions."""
    rows, cols = torch.nonzero(mask, as_tuple=True)
    assert len(rows) > 0
    return float(cols.float().mean()) / mask.shape[1], float(rows.float().mean()) / mask.shape[0]


@pytest.mark.parametrize("time", list(Time))
def test_sky_has_the_colours_of_its_palette(time: Time) -> None:
    for sky in SKIES[time]:
        picture = one(replace(EMPTY, time=time, sky=sky))
        top = picture[:, 0].median(dim=1).values
        horizon = picture[:, int((EMPTY.horizon - 0.02) * SIZE)].median(dim=1).values
        assert torch.allclose(top, torch.tensor(palette.SKY_STOPS[sky][0]), atol=0.06)
        assert torch.allclose(horizon, torch.tensor(palette.SKY_STOPS[sky][2]), atol=0.10)


@pytest.mark.parametrize("colour", list(Colour))
@pytest.mark.parametrize("time", list(Time))
def test_house_and_boat_show_their_colour_where_they_stand(time: Time, colour: Colour) -> None:
    house = Placed(colour, Side.LEFT, 0.26, 0.9, 0.24)
    boat = Placed(colour, Side.RIGHT, 0.74, 0.68, 0.19)
    scene = replace(EMPTY, time=time, sky=SKIES[time][0], water=Water.LAKE, house=house, boat=boat)
    picture = one(scene)
    wanted = list(Colour).index(colour)
    assert object_colour(picture, "house", house.x, house.y, time) == wanted
    assert object_colour(picture, "boat", boat.x, boat.y, time) == wanted


@pytest.mark.parametrize(("side", "x"), [(Side.LEFT, 0.25), (Side.CENTRE, 0.5), (Side.RIGHT, 0.75)])
def test_objects_stand_on_their_side(side: Side, x: float) -> None:
    house = Placed(Colour.RED, side, x, 0.9, 0.24)
    sun = Light(LightKind.SUN, side, x, 0.2, 0.06)
    for scene, y in ((replace(EMPTY, house=house), 0.8), (replace(EMPTY, light=sun), 0.2)):
        found_x, found_y = middle_of(difference(scene, EMPTY))
        assert found_x == pytest.approx(x, abs=0.03)
        assert found_y == pytest.approx(y, abs=0.06)


def test_birds_fly_where_the_scene_says() -> None:
    found_x, found_y = middle_of(difference(replace(EMPTY, birds=Flock(0.4, 0.2)), EMPTY))
    assert found_x == pytest.approx(0.4, abs=0.04)
    assert found_y == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize("kind", [TreeKind.PINES, TreeKind.PALMS, TreeKind.ROUND])
@pytest.mark.parametrize("side", list(TreeSide))
def test_trees_grow_at_their_edges(kind: TreeKind, side: TreeSide) -> None:
    changed = difference(replace(EMPTY, trees=Trees(kind, side, 2)), EMPTY)
    left = bool(changed[:, : SIZE // 4].any())
    right = bool(changed[:, -SIZE // 4 :].any())
    assert left == (side is not TreeSide.RIGHT)
    assert right == (side is not TreeSide.LEFT)
    assert not changed[:, int(0.45 * SIZE) : int(0.55 * SIZE)].any()


def test_more_clouds_cover_more_sky() -> None:
    areas = [
        int(difference(replace(EMPTY, clouds=clouds), EMPTY).sum())
        for clouds in (Clouds.NONE, Clouds.SOME, Clouds.MANY)
    ]
    assert areas[0] == 0
    assert areas[2] > 1.8 * areas[1] > 0


@pytest.mark.parametrize("relief", [Relief.MOUNTAINS, Relief.HILLS, Relief.DUNES])
def test_relief_rises_over_the_horizon_and_stays_above_the_ground(relief: Relief) -> None:
    changed = difference(replace(EMPTY, relief=relief), EMPTY)
    horizon = int(EMPTY.horizon * SIZE)
    assert changed[horizon - 12 : horizon - 2].any()
    assert not changed[horizon + 5 :].any()
    assert not changed[: horizon // 3].any()


def test_only_a_lake_mirrors_what_stands_above_it() -> None:
    above = int(0.46 * SIZE)
    below = int((2 * EMPTY.horizon - 0.46) * SIZE)
    for water, mirrors in ((Water.LAKE, True), (Water.SEA, False)):
        flat = replace(EMPTY, water=water)
        changed = difference(replace(flat, relief=Relief.MOUNTAINS), flat)
        assert changed[above].any()
        assert bool(changed[below - 2 : below + 2].any()) == mirrors


@pytest.mark.parametrize("ground", list(Ground))
def test_ground_has_its_shade(ground: Ground) -> None:
    bottom = one(replace(EMPTY, ground=ground))[:, -1].median(dim=1).values
    near = torch.tensor(palette.GROUND_SHADES[ground][1])
    assert torch.allclose(bottom, near, atol=0.06)


def test_crescent_is_a_moon_with_a_bite() -> None:
    night = replace(EMPTY, time=Time.NIGHT, sky=Sky.NAVY)
    bright = []
    for kind in (LightKind.MOON, LightKind.CRESCENT):
        moon = Light(kind, Side.CENTRE, 0.5, 0.2, 0.07)
        picture = one(replace(night, light=moon))
        part = picture[:, int(0.13 * SIZE) : int(0.27 * SIZE), int(0.43 * SIZE) : int(0.57 * SIZE)]
        bright.append(int((part.amin(dim=0) > 0.8).sum()))
    assert 0.15 < bright[1] / bright[0] < 0.7


@pytest.mark.parametrize(("height", "width"), [(96, 144), (144, 96), (192, 192)])
def test_a_scene_fills_any_size(height: int, width: int) -> None:
    picture = one(scene_at(1, 3), height, width)
    assert picture.shape == (3, height, width)
    assert 0.0 <= float(picture.min()) <= float(picture.max()) <= 1.0


def test_a_larger_picture_is_the_same_picture() -> None:
    scene = scene_at(1, 0)
    small, large = one(scene, 96, 96), one(scene, 192, 192)
    shrunk = torch.nn.functional.avg_pool2d(large[None], 2)[0]
    assert float((small - shrunk).abs().mean()) < 0.01


def test_drawing_alone_or_in_a_batch_gives_the_same_picture() -> None:
    scenes = [scene_at(4, i) for i in range(6)]
    together = draw(scenes, 64, 64)
    for scene, picture in zip(scenes, together, strict=True):
        assert torch.equal(one(scene, 64, 64), picture)


def test_same_seed_same_stream() -> None:
    cpu = torch.device("cpu")
    whole = scene_batch(5, 0, 8, cpu, 0)
    tail = scene_batch(5, 4, 4, cpu, 0)
    assert torch.equal(whole.rows[4:], tail.rows)
    assert torch.equal(whole.seeds[4:], tail.seeds)
    assert not torch.equal(whole.seeds, scene_batch(6, 0, 8, cpu, 0).seeds)
    first, second = (PicturePool.draw(whole, 64, 64) for _ in range(2))
    assert torch.equal(first.pictures, second.pictures)
    crops = [first.crops(3, 32, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(crops[0], crops[1])
