"""Pictures from pictures, with and without a mask, and second passes: as diffusers makes them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from functools import partial
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
from rockiln.domain.sampling import DIFFUSION_SCHEDULERS, FLOW_SCHEDULERS
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
MAKERS: dict[str, Callable[..., Path]] = {
    "sd1": make_tiny_sd1,
    "sdxl": make_tiny_sdxl,
    "sd3": make_tiny_sd3,
    "flux": make_tiny_flux,
    "flux2": partial(make_tiny_flux2, distilled=True),
    "z_image": make_tiny_z_image,
    "qwen_image": make_tiny_qwen_image,
}
STEMS = {
    "sd1": "StableDiffusion",
    "sdxl": "StableDiffusionXL",
    "sd3": "StableDiffusion3",
    "flux": "Flux",
    "flux2": "Flux2Klein",
    "z_image": "ZImage",
    "qwen_image": "QwenImage",
}
FLOWS = ("sd3", "flux", "z_image", "qwen_image")
SCHEDULER = dict.fromkeys((*FLOWS, "flux2"), "flow_euler")
PICTURE = Image.fromarray(
    np.random.default_rng(0).integers(0, 255, (12, 8, 3), dtype=np.uint8)
).resize((80, 96), Image.Resampling.BICUBIC)
# Soft edges, and none that lies on the latents' grid.
MASK = Image.new("L", (80, 96), 0)
MASK.paste(255, (19, 13, 60, 70))
MASK = MASK.resize((40, 48), Image.Resampling.BILINEAR).resize((80, 96), Image.Resampling.BILINEAR)


class Flux2WithoutReferences(diffusers.Flux2KleinInpaintPipeline):  # type: ignore[misc]
    """It shows the network the whole picture beside what is drawn; here it begins with it alone."""

    def prepare_image_latents(self, *given: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, places = super().prepare_image_latents(*given, **named)
        return tokens[:, :0], places[:, :0]


OWN_PIPELINES = {"Flux2KleinInpaintPipeline": Flux2WithoutReferences}


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
            reference = Reference(
                OWN_PIPELINES.get(name) or getattr(diffusers, name), folders[family]
            )
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


@pytest.mark.parametrize("family", MAKERS)
def test_every_family_may_be_asked_for_all_of_it(folders: dict[str, Path], family: str) -> None:
    assert {"image", "mask", "hires", "loras"} <= set(read_profile(folders[family]).features)


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


def flux2_from(
    clean: torch.Tensor, pipeline: Any, prompt: str, generator: torch.Generator, steps: int
) -> Pixels:
    """From half of the noise: the call takes the latents and sigmas that such a start comes to."""
    sigmas = np.linspace(1.0, 1 / steps, steps)
    mu = compute_empirical_mu(clean[0, 0].numel(), steps)
    pipeline.scheduler.set_timesteps(sigmas=sigmas, mu=mu)
    noise = torch.randn(clean.shape, generator=generator)
    begin = pipeline.scheduler.timesteps[steps // 2][None]
    picture = pipeline(
        prompt=prompt,
        width=clean.shape[-1] * 16,
        height=clean.shape[-2] * 16,
        latents=pipeline.scheduler.scale_noise(clean, begin, noise),
        num_inference_steps=steps,
        sigmas=list(sigmas[steps // 2 :]),
    )
    return np.asarray(picture.images[0])


def test_flux2_takes_a_picture_as_latents_and_the_sigmas_that_are_left(
    harness: EngineHarness, folders: dict[str, Path], pipelines: Any
) -> None:
    """The reference has no picture to start from, but with a mask."""
    asked = wanted(harness, "flux2")
    pipeline = pipelines("flux2", "").pipeline
    generator = torch.Generator("cpu").manual_seed(asked.seed)
    with torch.no_grad():
        clean = pipeline._encode_vae_image(pipeline.image_processor.preprocess(PICTURE), generator)
    expected = flux2_from(clean, pipeline, asked.prompt, generator, 6)
    assert largest_difference(drawn(harness, folders["flux2"], asked), expected) == 0


def test_flux2_enlarges_between_the_places_of_its_autoencoder(
    harness: EngineHarness, folders: dict[str, Path], pipelines: Any
) -> None:
    asked = parameters(model="flux2", scheduler="flow_euler", hires=HiresPass(96, 112, 6, 0.5))
    reference = pipelines("flux2", "")
    pipeline, given = reference.pipeline, options(asked, reference)
    small = pipeline(width=64, height=64, output_type="latent", **given).images
    large = torch.nn.functional.interpolate(small, size=(14, 12), mode="bilinear")
    vae = pipeline.vae
    deviation = torch.sqrt(vae.bn.running_var + vae.config.batch_norm_eps)
    mean, deviation = (each.view(1, -1, 1, 1) for each in (vae.bn.running_mean, deviation))
    clean = (pipeline._patchify_latents(large) - mean) / deviation
    expected = flux2_from(clean, pipeline, asked.prompt, given["generator"], 6)
    assert largest_difference(drawn(harness, folders["flux2"], asked), expected) == 0


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
@pytest.mark.parametrize(
    ("family", "scheduler"),
    [
        *itertools.product(["sd1", "sdxl"], ["ddim", "euler_ancestral", "heun", "dpmpp_2m", "lcm"]),
        *((family, "flow_euler") for family in ("flux", "flux2", "z_image", "qwen_image")),
    ],
)
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
    assert_drawn_anew(drawn(harness, folders[family], asked), np.asarray(expected))


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("scheduler", FLOW_SCHEDULERS)
def test_sd3_puts_back_what_a_mask_keeps(
    harness: EngineHarness,
    folders: dict[str, Path],
    pipelines: Any,
    scheduler: str,
    strength: float,
) -> None:
    """By img2img's callback: the pipeline for masks decodes without the autoencoder's shift."""
    mask = stored(harness, MASK)
    asked = wanted(harness, "sd3", scheduler=scheduler, mask=mask, strength=strength)
    reference = pipelines("sd3", "Img2Img")
    vae, generator = reference.pipeline.vae, torch.Generator("cpu").manual_seed(asked.seed)
    with torch.no_grad():
        pixels = reference.pipeline.image_processor.preprocess(PICTURE)
        latents = vae.encode(pixels).latent_dist.sample(generator)
    kept = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    noise = torch.randn(kept.shape, generator=generator)
    binary = torch.tensor(np.asarray(MASK) >= 128, dtype=torch.float32)
    anew = torch.nn.functional.interpolate(binary[None, None], size=kept.shape[-2:])

    def put_back(pipeline: Any, step: int, _: Any, made: dict[str, Any]) -> dict[str, Any]:
        left = pipeline.scheduler.timesteps[-pipeline.num_timesteps :][step + 1 :]
        at = pipeline.scheduler.scale_noise(kept, left[:1], noise) if len(left) else kept
        return {"latents": (1 - anew) * at + anew * made["latents"]}

    expected = reference.pipeline(
        image=PICTURE,
        strength=strength,
        width=80,
        height=96,
        callback_on_step_end=put_back,
        **options(asked, reference),
    ).images[0]
    assert_drawn_anew(drawn(harness, folders["sd3"], asked), np.asarray(expected))


def assert_drawn_anew(found: Pixels, expected: Pixels) -> None:
    anew = np.asarray(MASK) >= 128
    assert 0.1 < anew.mean() < 0.9
    assert largest_difference(found[anew], expected[anew]) == 0
    assert largest_difference(found[~anew], np.asarray(PICTURE)[~anew]) == 0


@pytest.mark.parametrize(
    ("family", "scheduler"),
    [
        *itertools.product(["sd1", "sdxl"], ["euler", "euler_ancestral", "heun", "dpmpp_sde"]),
        *((family, "flow_euler") for family in FLOWS),
    ],
)
def test_a_second_pass_equals_two_calls_of_the_reference(
    harness: EngineHarness,
    folders: dict[str, Path],
    pipelines: Any,
    family: str,
    scheduler: str,
) -> None:
    asked = parameters(
        model=family, scheduler=scheduler, hires=HiresPass(96, 112, 5, 0.6), width=64, height=80
    )
    first, second = pipelines(family, ""), pipelines(family, "Img2Img")
    given = options(asked, first)
    small = first.pipeline(width=64, height=80, output_type="latent", **given).images
    if small.ndim == 3:  # patches
        small = first.pipeline._unpack_latents(small, 80, 64, 8).reshape(1, 4, 10, 8)
    large = torch.nn.functional.interpolate(small, size=(14, 12), mode="bilinear")
    second.schedule(scheduler)
    given |= {"num_inference_steps": 5} | ({"width": 96, "height": 112} if family in FLOWS else {})
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


@pytest.mark.parametrize("family", ["sd1", "flux2", "z_image", "qwen_image"])
def test_a_retry_starts_at_stored_latents_and_keeps_what_the_mask_keeps(
    harness: EngineHarness, folders: dict[str, Path], family: str
) -> None:
    asked = wanted(harness, family, mask=stored(harness, MASK))
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
