"""Pictures from pictures, with and without a mask, and second passes: as diffusers makes them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import pytest
import torch
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from PIL import Image

from rockiln.domain.model import ModelProfile
from rockiln.domain.request import GenerationParameters, HiresPass
from rockiln.domain.sampling import DIFFUSION_SCHEDULERS
from rockiln.worker import protocol
from support.engine_harness import EngineHarness, largest_difference, read_profile
from support.parameters import parameters
from support.reference import Reference
from support.tiny_flow import make_tiny_flux, make_tiny_sd3
from support.tiny_qwen import make_tiny_flux2, make_tiny_qwen_image, make_tiny_z_image
from support.tiny_sd1 import make_tiny_sd1
from support.tiny_sdxl import make_tiny_sdxl

pytestmark = pytest.mark.slow

Pixels = npt.NDArray[np.uint8]
MAKERS = {
    "sd1": make_tiny_sd1,
    "sdxl": make_tiny_sdxl,
    "sd3": make_tiny_sd3,
    "flux": make_tiny_flux,
    "z_image": make_tiny_z_image,
    "qwen_image": make_tiny_qwen_image,
}
STEMS = {
    "sd1": "StableDiffusion",
    "sdxl": "StableDiffusionXL",
    "sd3": "StableDiffusion3",
    "flux": "Flux",
    "z_image": "ZImage",
    "qwen_image": "QwenImage",
}
FLOWS = ("sd3", "flux", "z_image", "qwen_image")
SCHEDULER = dict.fromkeys(FLOWS, "flow_euler")
PICTURE = Image.fromarray(
    np.random.default_rng(0).integers(0, 255, (12, 8, 3), dtype=np.uint8)
).resize((80, 96), Image.Resampling.BICUBIC)
# Soft edges, and none that lies on the latents' grid.
MASK = Image.new("L", (80, 96), 0)
MASK.paste(255, (19, 13, 60, 70))
MASK = MASK.resize((40, 48), Image.Resampling.BILINEAR).resize((80, 96), Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: make(root / family) for family, make in MAKERS.items()}


@pytest.fixture(scope="module")
def pipelines(folders: dict[str, Path]) -> Any:
    """Reference pipelines by family and kind, each loaded once."""
    made: dict[tuple[str, str], Reference] = {}

    def pipeline(family: str, kind: str) -> Reference:
        if (family, kind) not in made:
            name = f"{STEMS[family]}{kind}Pipeline"
            reference = Reference(getattr(diffusers, name), folders[family])
            for part in ("unet", "transformer", "vae", "text_encoder"):
                if part in reference.pipeline.components and family != "qwen_image":
                    reference.pipeline.components[part].to(memory_format=torch.channels_last)
            made[family, kind] = reference
        return made[family, kind]

    return pipeline


def stored(harness: EngineHarness, image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return harness.artefacts.put_input(file.getvalue())


def wanted(harness: EngineHarness, family: str, **changes: Any) -> GenerationParameters:
    return parameters(
        **{
            "model": family,
            "scheduler": SCHEDULER.get(family, "euler"),
            "width": 80,
            "height": 96,
            "image": stored(harness, PICTURE),
            "strength": 0.5,
            "num_inference_steps": 6,
            **changes,
        }
    )


def drawn(harness: EngineHarness, folder: Path, asked: GenerationParameters) -> Pixels:
    (picture,) = harness.run(asked, read_profile(folder))
    return harness.pixels(picture)


def options(asked: GenerationParameters, reference: Reference) -> dict[str, Any]:
    reference.schedule(asked.scheduler)
    given = {
        "prompt": asked.prompt,
        "negative_prompt": asked.negative_prompt or None,
        "guidance_scale": asked.guidance_scale,
        "generator": torch.Generator("cpu").manual_seed(asked.seed),
        "num_inference_steps": asked.num_inference_steps,
    }
    if "Flux" in type(reference.pipeline).__name__:
        del given["negative_prompt"]
    if "ZImage" in type(reference.pipeline).__name__:
        given["guidance_scale"] = asked.guidance_scale - 1
    if "QwenImage" in type(reference.pipeline).__name__:
        given |= {"true_cfg_scale": given.pop("guidance_scale"), "negative_prompt": ""}
    return given


@pytest.mark.parametrize("scheduler", DIFFUSION_SCHEDULERS)
def test_a_picture_from_a_picture_equals_the_reference(
    harness: EngineHarness, folders: dict[str, Path], pipelines: Any, scheduler: str
) -> None:
    asked = wanted(harness, "sd1", scheduler=scheduler)
    reference = pipelines("sd1", "Img2Img")
    expected = reference.pipeline(image=PICTURE, strength=0.5, **options(asked, reference))
    assert (
        largest_difference(drawn(harness, folders["sd1"], asked), np.asarray(expected.images[0]))
        == 0
    )


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("family", ["sdxl", *FLOWS])
def test_each_family_takes_a_picture(
    harness: EngineHarness,
    folders: dict[str, Path],
    pipelines: Any,
    family: str,
    strength: float,
) -> None:
    asked = wanted(harness, family, strength=strength, negative_prompt="")
    reference = pipelines(family, "Img2Img")
    size = {} if family == "sdxl" else {"width": 80, "height": 96}
    expected = reference.pipeline(
        image=PICTURE, strength=strength, **size, **options(asked, reference)
    )
    assert (
        largest_difference(drawn(harness, folders[family], asked), np.asarray(expected.images[0]))
        == 0
    )


def test_flux2_takes_a_picture_as_latents_and_the_sigmas_that_are_left(
    harness: EngineHarness, tmp_path: Path
) -> None:
    """The reference has no picture to start from; its call takes what such a start comes to."""
    folder = make_tiny_flux2(tmp_path / "flux2", distilled=True)
    asked = wanted(harness, "flux2", scheduler="flow_euler", negative_prompt="")
    pipeline = Reference(diffusers.Flux2KleinPipeline, folder).pipeline
    generator = torch.Generator("cpu").manual_seed(asked.seed)
    pixels = pipeline.image_processor.preprocess(PICTURE)
    with torch.no_grad():
        clean = pipeline._encode_vae_image(pixels, generator)
    mu = compute_empirical_mu(clean[0, 0].numel(), 6)
    scheduler, sigmas = pipeline.scheduler, np.linspace(1.0, 1 / 6, 6)
    scheduler.set_timesteps(sigmas=sigmas, mu=mu)
    noise = torch.randn(clean.shape, generator=generator)
    expected = pipeline(
        prompt=asked.prompt,
        width=80,
        height=96,
        latents=scheduler.scale_noise(clean, scheduler.timesteps[3:4], noise),
        num_inference_steps=6,
        sigmas=list(sigmas[3:]),
    )
    found = drawn(harness, folder, asked)
    assert largest_difference(found, np.asarray(expected.images[0])) == 0


def test_a_picture_of_another_size_is_resized_as_the_reference_does(
    harness: EngineHarness, folders: dict[str, Path], pipelines: Any
) -> None:
    asked = wanted(harness, "sd1", width=64, height=72)
    reference = pipelines("sd1", "Img2Img")
    resized = PICTURE.resize((64, 72), Image.Resampling.LANCZOS)
    expected = reference.pipeline(image=resized, strength=0.5, **options(asked, reference))
    assert (
        largest_difference(drawn(harness, folders["sd1"], asked), np.asarray(expected.images[0]))
        == 0
    )


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("scheduler", ["ddim", "euler_ancestral", "heun", "dpmpp_2m", "lcm"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_what_is_drawn_anew_equals_the_reference_and_the_rest_is_kept(  # noqa: PLR0917 (by name)
    harness: EngineHarness,
    folders: dict[str, Path],
    pipelines: Any,
    family: str,
    scheduler: str,
    strength: float,
) -> None:
    mask = stored(harness, MASK)
    asked = wanted(harness, family, scheduler=scheduler, mask=mask, strength=strength)
    reference = pipelines(family, "Inpaint")
    expected = reference.pipeline(
        image=PICTURE,
        mask_image=MASK,
        width=80,
        height=96,
        strength=strength,
        **options(asked, reference),
    ).images[0]
    found = drawn(harness, folders[family], asked)
    anew = np.asarray(MASK) >= 128
    assert 0.1 < anew.mean() < 0.9
    assert largest_difference(found[anew], np.asarray(expected)[anew]) == 0
    assert largest_difference(found[~anew], np.asarray(PICTURE)[~anew]) == 0


@pytest.mark.parametrize("scheduler", ["euler", "euler_ancestral", "heun", "dpmpp_sde"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_second_pass_equals_two_calls_of_the_reference(
    harness: EngineHarness,
    folders: dict[str, Path],
    pipelines: Any,
    family: str,
    scheduler: str,
) -> None:
    asked = parameters(
        model=family, scheduler=scheduler, hires=HiresPass(96, 112, 5, 0.6), width=64, height=72
    )
    first, second = pipelines(family, ""), pipelines(family, "Img2Img")
    given = options(asked, first)
    small = first.pipeline(width=64, height=72, output_type="latent", **given).images
    large = torch.nn.functional.interpolate(small, size=(14, 12), mode="bilinear")
    second.schedule(scheduler)
    given["num_inference_steps"] = 5
    expected = second.pipeline(image=large, strength=0.6, **given).images[0]
    assert largest_difference(drawn(harness, folders[family], asked), np.asarray(expected)) == 0
    steps = [(event.step, event.steps) for event in harness.of(protocol.StepDone)]
    assert steps[-1] == (asked.total_steps, asked.total_steps) == (7, 7)
    assert steps == sorted(steps)


def test_flow_heun_equals_the_reference(
    harness: EngineHarness, folders: dict[str, Path], pipelines: Any
) -> None:
    asked = parameters(model="sd3", scheduler="flow_heun", negative_prompt="")
    reference = pipelines("sd3", "")
    expected = reference.pipeline(width=64, height=64, **options(asked, reference)).images[0]
    assert largest_difference(drawn(harness, folders["sd3"], asked), np.asarray(expected)) == 0


def test_a_flow_that_shifts_with_size_takes_heun_too(
    harness: EngineHarness, folders: dict[str, Path]
) -> None:
    asked = {"model": "flux", "scheduler": "flow_heun"}
    small, again = (drawn(harness, folders["flux"], parameters(**asked)) for _ in range(2))
    assert largest_difference(small, again) == 0


@pytest.mark.parametrize("family", ["sd1", "z_image", "qwen_image"])
def test_a_retry_starts_at_stored_latents_and_keeps_what_the_mask_keeps(
    harness: EngineHarness, folders: dict[str, Path], family: str
) -> None:
    masked = {"mask": stored(harness, MASK)} if family == "sd1" else {}
    asked = wanted(harness, family, **masked)
    whole = drawn(harness, folders[family], asked)
    (stored_latents,) = harness.of(protocol.LatentsStored)
    task = protocol.PictureTask(index=0, latents=stored_latents.latents)
    (again,) = harness.run(asked, read_profile(folders[family]), pictures=[task])
    assert largest_difference(harness.pixels(again), whole) == 0
    assert harness.of(protocol.StepDone) == []


def test_several_pictures_share_the_encoding_and_not_the_noise(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    asked = wanted(harness, "tiny", num_images=2)
    one, other = harness.run(asked, tiny)
    (alone,) = harness.run(wanted(harness, "tiny", seed=asked.seed + 1), tiny)
    assert harness.data(other) == harness.data(alone) != harness.data(one)


def test_a_picture_that_is_gone_fails_the_job_with_the_reason(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    harness.run(wanted(harness, "tiny", image="0" * 64), tiny)
    assert "cannot be read" in harness.failure().detail
