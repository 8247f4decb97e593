"""ControlNets: as diffusers' pipelines draw with them, in every memory mode, without a trace."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from rockiln.domain.fault import FaultCode
from rockiln.domain.request import ControlNetUse, GenerationParameters, HiresPass
from rockiln.engine.attention import SlicedAttention
from rockiln.worker import protocol
from support.engine_harness import EngineHarness, largest_difference, read_profile
from support.parameters import parameters
from support.reference import Reference
from support.tiny_controlnet import make_tiny_controlnet
from support.tiny_sd1 import make_tiny_sd1
from support.tiny_sdxl import make_tiny_sdxl

pytestmark = pytest.mark.slow

Pixels = npt.NDArray[np.uint8]
MAKERS = {"sd1": make_tiny_sd1, "sdxl": make_tiny_sdxl}
STEMS = {"sd1": "StableDiffusion", "sdxl": "StableDiffusionXL"}
SIZE = (64, 80)


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (10, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


EDGES, DEPTH, START = picture(1), picture(2), picture(3)
MASK = Image.new("L", SIZE, 0)
MASK.paste(255, (13, 21, 50, 60))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The models by family, and ``FAMILY-NAME`` ControlNets for them."""
    root = tmp_path_factory.mktemp("models")
    found = {family: make(root / family) for family, make in MAKERS.items()}
    nets = root / "controlnets"
    for family, folder in list(found.items()):
        for seed, name in enumerate(("edges", "depth", "small")):
            found[f"{family}-{name}"] = make_tiny_controlnet(
                nets / f"{family}-{name}", folder, seed=seed, small=name == "small"
            )
    return found


@pytest.fixture(scope="module")
def pipelines(folders: dict[str, Path]) -> Any:
    """Reference pipelines by family, kind and ControlNets, each loaded once."""
    made: dict[Any, Reference] = {}

    def pipeline(family: str, kind: str, *names: str) -> Reference:
        if (family, kind, names) not in made:
            networks = [
                diffusers.ControlNetModel.from_pretrained(
                    folders[f"{family}-{name}"], low_cpu_mem_usage=False
                ).to(memory_format=torch.channels_last)
                for name in names
            ]
            kind_of_pipeline = getattr(diffusers, f"{STEMS[family]}ControlNet{kind}Pipeline")
            beside = {"controlnet": networks[0] if len(networks) == 1 else networks}
            reference = Reference(kind_of_pipeline, folders[family], **beside)
            reference.lay_out(torch.channels_last)
            made[family, kind, names] = reference
        return made[family, kind, names]

    return pipeline


def stored(harness: EngineHarness, image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return harness.artefacts.put_input(file.getvalue())


def use(
    harness: EngineHarness,
    name: str = "edges",
    image: Image.Image = EDGES,
    scale: float = 0.8,
    share: tuple[float, float] = (0.0, 1.0),
) -> ControlNetUse:
    return ControlNetUse(name, stored(harness, image), scale, *share)


def wanted(*uses: ControlNetUse, **changes: Any) -> GenerationParameters:
    return parameters(
        **{
            "width": SIZE[0],
            "height": SIZE[1],
            "num_inference_steps": 6,
            "scheduler": "euler",
            "controlnets": uses,
            **changes,
        }
    )


def drawn(
    harness: EngineHarness,
    folders: dict[str, Path],
    family: str,
    asked: GenerationParameters,
    **options: Any,
) -> list[Pixels]:
    files = {each.name: str(folders[f"{family}-{each.name}"]) for each in asked.controlnets}
    made = harness.run(asked, read_profile(folders[family]), controlnet_files=files, **options)
    assert len(made) == asked.num_images, harness.events[-1]
    return [harness.pixels(each) for each in made]


def options(asked: GenerationParameters, reference: Reference) -> dict[str, Any]:
    """Of a pipeline call."""
    reference.schedule(asked.scheduler)
    one = len(asked.controlnets) == 1
    control = {
        "controlnet_conditioning_scale": [each.scale for each in asked.controlnets],
        "control_guidance_start": [each.start for each in asked.controlnets],
        "control_guidance_end": [each.end for each in asked.controlnets],
    }
    return {
        "prompt": asked.prompt,
        "negative_prompt": asked.negative_prompt or None,
        "guidance_scale": asked.guidance_scale,
        "num_inference_steps": asked.num_inference_steps,
        "generator": torch.Generator("cpu").manual_seed(asked.seed),
        **{name: values[0] if one else values for name, values in control.items()},
    }


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("sd1", {}),
        ("sd1", {"guidance_scale": 1.0}),
        ("sd1", {"scheduler": "heun"}),
        ("sd1", {"scheduler": "dpmpp_2m_sde_karras", "negative_prompt": "night"}),
        ("sdxl", {}),
        ("sdxl", {"guidance_scale": 1.0}),
    ],
    ids=str,
)
def test_a_picture_equals_the_reference(
    harness: EngineHarness,
    folders: dict[str, Path],
    pipelines: Any,
    family: str,
    changes: dict[str, Any],
) -> None:
    # From the third of six steps to the fourth.
    for scale, share in ((0.8, (0.0, 1.0)), (1.3, (0.3, 0.7))):
        asked = wanted(use(harness, scale=scale, share=share), **changes)
        reference = pipelines(family, "", "edges")
        sides = {"width": SIZE[0], "height": SIZE[1]}
        (expected,) = reference.pipeline(image=EDGES, **sides, **options(asked, reference)).images
        (found,) = drawn(harness, folders, family, asked)
        assert largest_difference(found, np.asarray(expected)) == 0
        (plain,) = drawn(harness, folders, family, wanted(**changes))
        assert largest_difference(found, plain) > 5


@pytest.mark.parametrize("family", MAKERS)
def test_two_of_them_equal_the_reference(
    harness: EngineHarness, folders: dict[str, Path], pipelines: Any, family: str
) -> None:
    asked = wanted(use(harness), use(harness, "depth", DEPTH, 0.5, (0.0, 0.5)))
    reference = pipelines(family, "", "edges", "depth")
    images = {"image": [EDGES, DEPTH], "width": SIZE[0], "height": SIZE[1]}
    (expected,) = reference.pipeline(**images, **options(asked, reference)).images
    (found,) = drawn(harness, folders, family, asked)
    assert largest_difference(found, np.asarray(expected)) == 0


def test_one_without_attention_equals_the_reference(
    harness: EngineHarness, folders: dict[str, Path], pipelines: Any
) -> None:
    """As the small ones for SDXL are."""
    asked = wanted(use(harness, "small"))
    reference = pipelines("sdxl", "", "small")
    (expected,) = reference.pipeline(image=EDGES, **options(asked, reference)).images
    (found,) = drawn(harness, folders, "sdxl", asked)
    assert largest_difference(found, np.asarray(expected)) == 0


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("kind", ["Img2Img", "Inpaint"])
def test_a_picture_from_a_picture_equals_the_reference(
    harness: EngineHarness, folders: dict[str, Path], pipelines: Any, family: str, kind: str
) -> None:
    """The share of the steps counts from those that the strength leaves to do."""
    masked = {"mask": stored(harness, MASK)} if kind == "Inpaint" else {}
    asked = wanted(
        use(harness, share=(0.0, 0.5)), image=stored(harness, START), strength=0.6, **masked
    )
    reference = pipelines(family, kind, "edges")
    given = {"image": START, "control_image": EDGES, "strength": 0.6}
    if masked:
        given["mask_image"] = MASK
    (expected,) = reference.pipeline(
        **given, width=SIZE[0], height=SIZE[1], **options(asked, reference)
    ).images
    (found,) = drawn(harness, folders, family, asked)
    made = np.asarray(expected)
    if masked:  # what is kept is the client's own picture, not what a decoder makes of it
        made = np.where(np.asarray(MASK)[..., None] >= 128, made, np.asarray(START))
    assert largest_difference(found, made) == 0


def test_both_passes_follow_the_picture(
    harness: EngineHarness, folders: dict[str, Path], pipelines: Any
) -> None:
    asked = wanted(use(harness), hires=HiresPass(96, 120, 5, 0.6))
    first, second = pipelines("sd1", "", "edges"), pipelines("sd1", "Img2Img", "edges")
    given = options(asked, first)
    small = first.pipeline(image=EDGES, output_type="latent", **given).images
    large = torch.nn.functional.interpolate(small, size=(15, 12), mode="bilinear")
    second.schedule(asked.scheduler)
    given["num_inference_steps"] = 5
    expected = second.pipeline(
        image=large, control_image=EDGES, width=96, height=120, strength=0.6, **given
    ).images[0]
    (found,) = drawn(harness, folders, "sd1", asked)
    assert largest_difference(found, np.asarray(expected)) == 0


def test_a_map_of_another_size_is_resized_as_the_reference_does(
    harness: EngineHarness, folders: dict[str, Path], pipelines: Any
) -> None:
    large = picture(4, (160, 200))
    asked = wanted(use(harness, image=large))
    reference = pipelines("sd1", "", "edges")
    sides = {"width": SIZE[0], "height": SIZE[1]}
    (expected,) = reference.pipeline(image=large, **sides, **options(asked, reference)).images
    (found,) = drawn(harness, folders, "sd1", asked)
    assert largest_difference(found, np.asarray(expected)) == 0


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("sd1", {"placement": "model_offload"}),
        ("sd1", {"placement": "group_offload"}),
        ("sd1", {"placement": "sequential_offload"}),
        ("sd1", {"unload_before_decode": True}),
        ("sd1", {"max_batch_rows": 2}),
        ("sd1", {"split_samples": True, "placement": "sequential_offload"}),
        ("sd1", {"sliced_attention": True}),
        ("sd1", {"vae_tile_px": 512, "channels_last": False}),
        ("sdxl", {"placement": "group_offload"}),
        ("sdxl", {"split_samples": True, "placement": "sequential_offload"}),
    ],
    ids=str,
)
def test_every_memory_mode_gives_the_picture_of_the_full_one(
    harness: EngineHarness,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    changes: dict[str, Any],
) -> None:
    monkeypatch.setattr(SlicedAttention.__init__, "__defaults__", (1 << 16,))
    moves_weights_alone = set(changes) <= {"placement", "unload_before_decode"}
    asked = wanted(use(harness), num_images=2, num_inference_steps=3)
    full = drawn(harness, folders, family, asked)
    chosen = harness.plan(asked, read_profile(folders[family]), **changes)
    for one, other in zip(full, drawn(harness, folders, family, asked, chosen=chosen), strict=True):
        assert largest_difference(one, other) <= (0 if moves_weights_alone else 1)


def test_pictures_after_it_are_those_before_and_say_what_was_used(
    harness: EngineHarness, folders: dict[str, Path]
) -> None:
    tiny = read_profile(folders["sd1"])
    files = {"edges": str(folders["sd1-edges"])}
    steered = wanted(use(harness))
    (before,) = harness.run(wanted(), tiny)
    (one,) = harness.run(steered, tiny, controlnet_files=files)
    (again,) = harness.run(steered, tiny, controlnet_files=files)
    (after,) = harness.run(wanted(), tiny)
    assert before.digest == after.digest
    assert one.digest == again.digest != before.digest
    assert "controlnets" not in before.details
    digests, said = one.details["controlnets"], one.details["parameters"]
    assert isinstance(digests, dict)
    assert isinstance(said, dict)
    assert len(digests["edges"]) == 64
    assert GenerationParameters.from_dict(said) == steered
    text = (
        b'ControlNet 0: "Module: none, Model: edges, Weight: 0.8, Guidance Start: 0, Guidance End'
    )
    assert text in harness.data(one)


def test_jobs_with_and_without_one_in_one_loop_are_what_they_are_alone(
    harness: EngineHarness, folders: dict[str, Path]
) -> None:
    tiny = read_profile(folders["sd1"])
    files = {name: str(folders[f"sd1-{name}"]) for name in ("edges", "depth")}
    asked = {
        "plain": wanted(),
        "edges": wanted(use(harness)),
        "depth": wanted(use(harness, "depth", DEPTH)),
    }
    alone = [harness.run(each, tiny, controlnet_files=files)[0].digest for each in asked.values()]
    harness.events.clear()
    for name, each in asked.items():
        harness.submit(each, tiny, job_id=name, controlnet_files=files)
    harness.finish()
    assert [harness.encoded(job)[0].digest for job in asked] == alone


def test_it_leaves_when_another_model_comes_and_returns(
    harness: EngineHarness, folders: dict[str, Path]
) -> None:
    asked = wanted(use(harness))
    (alone,) = drawn(harness, folders, "sd1", asked)
    profile = read_profile(folders["sd1"])
    controlnets = harness.shelf.take(profile, harness.plan(asked, profile)).controlnets
    assert controlnets.held == [folders["sd1-edges"]]
    files = {"edges": str(folders["sd1-edges"])}
    harness.submit(asked, profile, job_id="first", controlnet_files=files)
    harness.engine.advance()
    harness.submit(parameters(), read_profile(folders["sdxl"]), job_id="second")
    assert controlnets.held == []
    harness.finish()
    (found,) = harness.encoded("first")
    assert largest_difference(harness.pixels(found), alone) == 0


def test_a_retry_from_stored_latents_needs_no_controlnet(
    harness: EngineHarness, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wanted(use(harness))
    (whole,) = drawn(harness, folders, "sd1", asked)
    (latents,) = harness.of(protocol.LatentsStored)
    task = protocol.PictureTask(index=0, latents=latents.latents)
    monkeypatch.setattr("rockiln.engine.controlnets.load_module", None)
    (again,) = drawn(harness, folders, "sd1", asked, pictures=[task])
    assert largest_difference(whole, again) == 0


def test_one_that_changed_on_disk_is_loaded_anew(
    harness: EngineHarness, folders: dict[str, Path], tmp_path: Path
) -> None:
    place = tmp_path / "controlnets" / "sd1-edges"
    shutil.copytree(folders["sd1-edges"], place)
    asked = wanted(use(harness))
    (before,) = drawn(harness, {**folders, "sd1-edges": place}, "sd1", asked)
    shutil.copytree(folders["sd1-depth"], place, dirs_exist_ok=True)
    (after,) = drawn(harness, {**folders, "sd1-edges": place}, "sd1", asked)
    assert largest_difference(before, after) > 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sdxl-edges", "another base: its numbers per token of text: 64, the model's: 32"),
        ("torn", "truncated"),
        ("gone", "not a plain file"),
        ("sd1", "names None, not ControlNetModel"),
    ],
)
def test_what_came_to_be_unfit_fails_with_the_reason(
    harness: EngineHarness, folders: dict[str, Path], tmp_path: Path, name: str, words: str
) -> None:
    place = folders.get(name, tmp_path / "controlnets" / name)
    if name == "torn":
        shutil.copytree(folders["sd1-edges"], place)
        (weights,) = place.glob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:-1])
    if name == "sd1":
        place = tmp_path / "controlnets" / name
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}")
    asked = wanted(use(harness))
    profile = read_profile(folders["sd1"])
    assert not harness.run(asked, profile, controlnet_files={"edges": str(place)})
    assert harness.failure().code is FaultCode.BROKEN_MODEL
    assert words in harness.failure().detail
    assert drawn(harness, folders, "sd1", asked)


def test_a_map_that_is_gone_fails_the_job(harness: EngineHarness, folders: dict[str, Path]) -> None:
    asked = wanted(ControlNetUse("edges", "0" * 64, 1.0, 0.0, 1.0))
    files = {"edges": str(folders["sd1-edges"])}
    assert not harness.run(asked, read_profile(folders["sd1"]), controlnet_files=files)
    assert "cannot be read" in harness.failure().detail
