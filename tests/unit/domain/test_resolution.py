"""What a request becomes for a model, and what of it is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from rockiln.domain.embeddings import names_in, replace_names
from rockiln.domain.errors import InvalidRequestError
from rockiln.domain.fingerprint import fingerprint
from rockiln.domain.request import (
    ControlNetUse,
    GenerationParameters,
    GenerationRequest,
    HiresPass,
    LoraUse,
)
from rockiln.domain.resolution import InputPicture, resolve
from rockiln.domain.sampling import A1111_NAMES, DIFFUSION_SCHEDULERS, scheduler_named
from support.paper_model import PAPER

IMAGE = InputPicture("a" * 64, 203, 130)
MASK = InputPicture("b" * 64, 203, 130)


def resolved(
    image: InputPicture | None = None, mask: InputPicture | None = None, **asked: Any
) -> GenerationParameters:
    given = {"prompt": "a boat", **asked}
    if image is not None:
        given["image"] = b"any"
    if mask is not None:
        given["mask"] = b"any"
    request = GenerationRequest(**given)
    return resolve(request, PAPER, seed=1, picture_format="png", image=image, mask=mask)


def test_a_plain_request_is_stored_as_it_always_was() -> None:
    assert set(resolved().as_dict()) == {
        "prompt", "negative_prompt", "width", "height", "num_inference_steps", "guidance_scale",
        "seed", "scheduler", "num_images", "model", "format",
    }  # fmt: skip


def test_parameters_survive_their_dictionary() -> None:
    full = resolved(
        IMAGE,
        MASK,
        strength=0.5,
        loras=[{"name": "ink", "weight": 0.5}],
        clip_skip=2,
        prompt_syntax="weighted",
    )
    assert GenerationParameters.from_dict(full.as_dict()) == full
    second = resolved(hires={"scale": 1.5})
    assert GenerationParameters.from_dict(second.as_dict()) == second
    with pytest.raises(TypeError, match="novelty"):
        GenerationParameters.from_dict(full.as_dict() | {"novelty": 1})


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (("a boat, ink.",), ("ink",)),
        (("INK boat", "bad-hands-5, ink"), ("ink", "bad-hands-5")),
        (("ink-wash, not ink wash", ""), ("ink-wash", "ink")),
        (("(ink:1.2) embedding:Oil.2",), ("ink", "Oil.2")),
        (("drinking, inky, tink",), ()),
        (("Ink_ _ink éink inké",), ()),
        (("in\u212a",), ()),  # the Kelvin sign is a k to those who ignore case
    ],
)
def test_textual_inversions_are_named_by_words(
    texts: tuple[str, ...], found: tuple[str, ...]
) -> None:
    known = ["Oil.2", "bad-hands-5", "ink", "ink-wash"]
    assert names_in(texts, known) == (found, [])
    spelt = [replace_names(text, found, lambda name: f"<{name}>") for text in texts]
    assert all(any(f"<{name}>" in text for text in spelt) for name in found)


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        ({"prompt": "a embedding:oil boat"}, "prompt", "no textual inversion 'oil'"),
        ({"negative_prompt": "(embedding:oil:1.2)"}, "prompt", "no textual inversion 'oil'"),
        ({"embeddings": ["oil"]}, "embeddings", "no textual inversion 'oil'"),
        ({"embeddings": ["ink"]}, "embeddings", "neither text has 'ink'"),
    ],
)
def test_textual_inversions_that_are_not_there_are_refused(
    asked: dict[str, Any], field: str, words: str
) -> None:
    request = GenerationRequest(**{"prompt": "a boat", **asked})
    with pytest.raises(InvalidRequestError, match=words) as refused:
        resolve(request, PAPER, seed=1, picture_format="png", embeddings=["ink"])
    assert refused.value.members["errors"][0]["field"] == field


def test_names_are_but_words_where_a_family_has_no_textual_inversions() -> None:
    bare = replace(PAPER, features=())
    request = GenerationRequest(prompt="ink and embedding:oil")
    found = resolve(request, bare, seed=1, picture_format="png", embeddings=["ink"])
    assert found.embeddings == ()
    with pytest.raises(InvalidRequestError, match="does not take it"):
        resolve(
            GenerationRequest(prompt="ink", embeddings=["ink"]),
            bare, seed=1, picture_format="png", embeddings=["ink"],
        )  # fmt: skip


def test_an_image_gives_the_size_and_a_strength() -> None:
    found = resolved(IMAGE)
    assert (found.width, found.height, found.strength) == (200, 128, 0.8)
    assert (found.image, found.inputs, found.total_steps) == (IMAGE.digest, (IMAGE.digest,), 3)
    assert resolved(IMAGE, width=64, height=72).width == 64


@pytest.mark.parametrize(
    ("size", "sides", "words"),
    [
        ((204, 130), {}, ""),
        ((64, 64), {"width": 512, "height": 512}, ""),
        ((513, 767), {"width": 256, "height": 384}, ""),
        ((64, 64), {"width": 512, "height": 440}, "would be stretched"),
        ((512, 256), {"width": 256, "height": 256}, "512x256 px, the picture 256x256"),
    ],
)
def test_a_map_is_scaled_and_never_stretched(
    size: tuple[int, int], sides: dict[str, int], words: str
) -> None:
    control = {"name": "edges", "image": b"x"}
    request = GenerationRequest.model_validate({"prompt": "a", "controlnets": [control], **sides})
    given: Any = {"seed": 1, "picture_format": "png", "controls": [InputPicture("0" * 64, *size)]}
    if words:
        with pytest.raises(InvalidRequestError, match=words):
            resolve(request, PAPER, **given)
        return
    found = resolve(request, PAPER, **given)
    assert found.controlnets == (ControlNetUse("edges", "0" * 64, 1.0, 0.0, 1.0),)
    assert type(found).from_dict(found.as_dict()) == found


@pytest.mark.parametrize(
    ("hires", "found"),
    [
        ({"scale": 2.0}, HiresPass(128, 128, 4, 0.7)),
        ({"scale": 1.3}, HiresPass(80, 80, 4, 0.7)),
        ({"width": 96, "height": 128, "num_inference_steps": 9, "strength": 0.5},
         HiresPass(96, 128, 9, 0.5)),
    ],
)  # fmt: skip
def test_a_second_pass_has_its_own_size_and_steps(hires: dict[str, Any], found: HiresPass) -> None:
    wanted = resolved(hires=hires)
    assert wanted.hires == found
    assert wanted.total_steps == 4 + int(found.num_inference_steps * found.strength)
    assert wanted.largest_size == (found.width, found.height)


def test_loras_are_taken_from_the_prompt_too() -> None:
    found = resolved(
        prompt="<lora:ink:0.5> a boat <lora:Old-Oil>", loras=[{"name": "x", "weight": 2.0}]
    )
    assert found.prompt == "a boat"
    assert found.loras == (LoraUse("x", 2.0), LoraUse("ink", 0.5), LoraUse("Old-Oil", 1.0))


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        ({"mask": b"m"}, "mask", "no image"),
        ({"strength": 0.5}, "strength", "no image"),
        ({"image": IMAGE, "strength": 0.2}, "strength", "not one step"),
        ({"image": IMAGE, "mask": replace(MASK, width=64)}, "mask", "64x130"),
        ({"hires": {}}, "hires", "scale, or width and height"),
        ({"hires": {"scale": 2.0, "width": 64, "height": 64}}, "hires", "scale, or"),
        ({"hires": {"width": 128}}, "hires", "scale, or"),
        ({"hires": {"scale": 4.0}, "width": 256}, "hires.width", "outside"),
        ({"hires": {"scale": 1.5, "strength": 0.1}}, "hires.strength", "not one step"),
        ({"hires": {"scale": 2.0}, "image": IMAGE, "width": 64, "height": 64}, "hires", "noise"),
        ({"scheduler": "lcm", "num_inference_steps": 51}, "num_inference_steps", "50 steps"),
        ({"prompt": "<lora:a:much> b"}, "prompt", "weight"),
        ({"prompt": "<lora:a:nan> b"}, "prompt", "weight"),
        ({"prompt": "<lora:a:1> b <lora:a:2>"}, "loras", "more than once"),
        ({"prompt": "".join(f"<lora:l{n}:1>" for n in range(9))}, "loras", "9 LoRAs"),
    ],
)
def test_what_does_not_go_together_is_refused(
    asked: dict[str, Any], field: str, words: str
) -> None:
    pictures = {
        name: asked[name] for name in ("image", "mask") if isinstance(asked.get(name), InputPicture)
    }
    plain = {name: value for name, value in asked.items() if name not in pictures}
    with pytest.raises(InvalidRequestError) as caught:
        resolved(**pictures, **plain)
    assert [each["field"] for each in caught.value.members["errors"]] == [field]
    assert words in caught.value.members["errors"][0]["message"]


@pytest.mark.parametrize(
    "asked",
    [
        {"hires": {"scale": 2.0}},
        {"loras": [{"name": "ink"}]},
        {"prompt": "<lora:ink:1> a boat"},
        {"clip_skip": 2},
        {"prompt_syntax": "weighted"},
        {"image": b"any"},
    ],
)
def test_what_a_family_does_not_have_is_refused(asked: dict[str, Any]) -> None:
    request = GenerationRequest(**{"prompt": "a boat", **asked})
    bare = replace(PAPER, features=())
    with pytest.raises(InvalidRequestError, match="does not take it"):
        resolve(request, bare, seed=1, picture_format="png")


@pytest.mark.parametrize(
    "asked",
    [
        {"strength": 0.0},
        {"strength": 1.1},
        {"hires": {"scale": 0.5}},
        {"hires": {"scale": 2.0, "speed": 1}},
        {"loras": [{"name": "../x"}]},
        {"loras": [{"name": "x", "weight": 5.0}]},
        {"clip_skip": 0},
        {"image": "no base64!"},
        {"scheduler": "dpmpp_9m"},
    ],
)
def test_what_no_model_takes_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GenerationRequest(**{"prompt": "a boat", **asked})


@pytest.mark.parametrize(
    ("said", "schedule", "name"),
    [
        ("DPM++ 2M Karras", None, "dpmpp_2m_karras"),
        ("dpm++ 2m", "Karras", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Automatic", "dpmpp_2m"),
        ("Euler a", None, "euler_ancestral"),
        ("k_euler_a", None, "euler_ancestral"),
        ("dpmpp_2m", "karras", "dpmpp_2m_karras"),
        ("UniPC", "Uniform", "unipc"),
        ("DDIM", "Karras", None),
        ("nothing", None, None),
    ],
)
def test_the_fields_names_of_schedulers_are_understood(
    said: str, schedule: str | None, name: str | None
) -> None:
    assert scheduler_named(said, schedule) == name


@pytest.mark.parametrize("name", DIFFUSION_SCHEDULERS)
def test_a_schedulers_a1111_name_leads_back_to_it(name: str) -> None:
    assert scheduler_named(*A1111_NAMES[name]) == name
    assert GenerationRequest.model_validate({"prompt": "a", "scheduler": name}).scheduler == name


def test_what_an_image_shows_makes_no_other_kind_of_work() -> None:
    one, other = resolved(IMAGE), resolved(replace(IMAGE, digest="c" * 64))
    assert fingerprint(one) == fingerprint(other) != fingerprint(resolved(width=200, height=128))
