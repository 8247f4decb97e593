"""A1111's dialect with a client library of its users, and with what Open WebUI sends."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import webuiapi  # type: ignore[import-untyped]
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rockiln.store.records import Job, Lease
from support.front import Front, ServedFront
from support.paper_controlnet import write_paper_controlnet
from support.paper_model import PAPER
from support.service import eventually

pytestmark = pytest.mark.slow

# Of A1111's answer, by its own source (modules/processing.py, Processed.js).
INFO_FIELDS = {
    "prompt", "all_prompts", "negative_prompt", "all_negative_prompts", "seed", "all_seeds",
    "subseed", "all_subseeds", "subseed_strength", "width", "height", "sampler_name", "cfg_scale",
    "steps", "batch_size", "restore_faces", "face_restoration_model", "sd_model_name",
    "sd_model_hash", "sd_vae_name", "sd_vae_hash", "seed_resize_from_w", "seed_resize_from_h",
    "denoising_strength", "extra_generation_params", "index_of_first_image", "infotexts", "styles",
    "job_timestamp", "clip_skip", "is_using_inpainting_conditioning", "version",
}  # fmt: skip
TEXT = "a boat\nSteps: 4, Sampler: Euler a, Seed: 7"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedFront]:
    with ServedFront(tmp_path_factory.mktemp("a1111"), waiting_slots=3) as served:
        yield served


@pytest.fixture
def client(front: ServedFront) -> Any:
    return webuiapi.WebUIApi(port=front.port)


def png() -> bytes:
    said = PngInfo()
    said.add_text("parameters", TEXT)
    file = io.BytesIO()
    Image.new("RGB", (128, 128)).save(file, "PNG", pnginfo=said)
    return file.getvalue()


@pytest.fixture
def draws(front: ServedFront) -> Iterator[None]:
    def draw(leased: tuple[Lease, Job]) -> None:
        front.hand.finish(leased, content=png())

    with front.hand.working(draw):
        yield


def test_txt2img_with_the_client_library(front: ServedFront, client: Any, draws: None) -> None:
    answer = client.txt2img(
        prompt="a boat",
        negative_prompt="fog",
        seed=7,
        steps=4,
        cfg_scale=3.5,
        width=128,
        height=128,
        batch_size=2,
        sampler_name="Euler a",
    )
    (job,) = front.store.jobs.page(limit=1)
    used = job.parameters
    assert (used.prompt, used.negative_prompt, used.seed) == ("a boat", "fog", 7)
    assert (used.num_inference_steps, used.guidance_scale, used.num_images) == (4, 3.5, 2)
    assert used.scheduler == "euler_ancestral"
    assert [image.size for image in answer.images] == [(128, 128)] * 2
    assert set(answer.info) >= INFO_FIELDS
    assert (answer.info["all_seeds"], answer.info["infotexts"]) == ([7, 8], [TEXT, TEXT])
    assert answer.parameters["prompt"] == "a boat"


def test_img2img_and_inpainting_with_the_client_library(
    front: ServedFront, client: Any, draws: None
) -> None:
    picture, mask = Image.new("RGB", (128, 128)), Image.new("L", (128, 128), 255)
    answer = client.img2img(
        images=[picture], mask_image=mask, prompt="a boat", width=128, height=128, steps=4
    )
    used = front.store.jobs.page(limit=1)[0].parameters
    assert (used.image is not None, used.mask is not None, used.strength) == (True, True, 0.75)
    assert len(answer.images) == 1
    assert "init_images" not in answer.parameters


def test_a_controlnet_unit_of_the_client_library(
    front: ServedFront, client: Any, draws: None
) -> None:
    write_paper_controlnet(front.models_dir / "controlnets" / "edges")
    assert client.controlnet_model_list() == ["edges"]
    assert client.controlnet_module_list() == ["none"]
    assert client.controlnet_version() == 2
    unit = webuiapi.ControlNetUnit(
        image=Image.new("RGB", (128, 128)), model="edges", weight=0.7, guidance_end=0.5
    )
    client.txt2img(prompt="a boat", width=128, height=128, controlnet_units=[unit])
    (use,) = front.store.jobs.page(limit=1)[0].parameters.controlnets
    assert (use.name, use.scale, use.start, use.end) == ("edges", 0.7, 0.0, 0.5)


def test_the_lists_of_the_client_library(client: Any, draws: None) -> None:
    assert client.util_get_model_names() == [PAPER.id]
    assert "Euler a" in client.util_get_sampler_names()
    assert "Karras" in [each["label"] for each in client.get_schedulers()]
    for name in ("loras", "embeddings", "upscalers", "sd_vae", "memory", "cmd_flags", "scripts"):
        assert isinstance(getattr(client, f"get_{name}")(), list | dict)
    assert client.refresh_checkpoints() in ({}, None)
    client.util_set_model(PAPER.id)
    assert client.util_get_current_model() == PAPER.id
    assert client.png_info(Image.open(io.BytesIO(png()))).info.startswith("a boat")


def test_progress_and_interrupt(front: ServedFront, client: Any) -> None:
    idle = client.get_progress()
    assert (idle["progress"], idle["state"]["job_count"]) == (0, 0)
    with ThreadPoolExecutor() as pool:
        call = pool.submit(client.txt2img, prompt="a boat", steps=8, width=128, height=128)
        eventually(lambda: client.get_progress()["state"]["job_count"] == 1, "it waits")
        leased = front.hand.lease()
        preview = front.store.artefacts.preview_path(leased[1].id, 0)
        preview.parent.mkdir(parents=True)
        preview.write_bytes(b"small")
        front.store.jobs.record_step(leased[0], 0, 2)
        running = client.get_progress()
        assert running["progress"] == 0.25
        # In tenths of a second: an answer that came at once has none.
        eventually(lambda: client.get_progress()["eta_relative"] > 0, "an estimate")
        assert running["current_task"] == leased[1].id
        assert (running["state"]["sampling_step"], running["state"]["sampling_steps"]) == (2, 8)
        assert base64.b64decode(running["current_image"]) == b"small"
        assert client.interrupt() == {}
        assert front.store.jobs.get(leased[1].id).cancel_requested
        front.store.jobs.record_cancelled(leased[0])
        front.store.wake("api")
        assert call.result(30).images == []


def test_what_open_webui_sends(front: ServedFront, draws: None) -> None:
    """By its backend/open_webui/routers/images.py: options, sd-models, the whole object back."""
    with httpx.Client(base_url=f"{front.url}/sdapi/v1", timeout=60) as client:
        options = client.get("/options").json()
        assert options["sd_model_checkpoint"] == PAPER.id
        models = client.get("/sd-models").json()
        assert {"title", "model_name"} <= set(models[0])
        options["sd_model_checkpoint"] = models[0]["title"]
        answer = client.post("/options", json=options)
        assert answer.is_success
        assert client.get("/options").json() == options
        body = {"prompt": "a boat", "batch_size": 1, "width": 256, "height": 256, "steps": 5}
        answer = client.post("/txt2img", json=body | {"negative_prompt": ""}, auth=("user", "x"))
        assert answer.is_success, answer.text
        (image,) = answer.json()["images"]
        assert base64.b64decode(image) == png()
        assert json.loads(answer.json()["info"])["steps"] == 5


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("txt2img", {"prompt": "a", "sampler_name": "Nobody's"}, 400, "Sampler not found"),
        ("txt2img", {"prompt": "a", "steps": 0}, 422, "num_inference_steps"),
        ("txt2img", {"prompt": "a", "batch_size": 4, "n_iter": 4}, 422, "n_iter"),
        ("txt2img", {"prompt": "a", "script_name": "x/y/z plot"}, 422, "script_name"),
        ("txt2img", {"prompt": "a", "restore_faces": True}, 422, "restore_faces"),
        ("txt2img", {"prompt": "a", "alwayson_scripts": {"ADetailer": {}}}, 422, "alwayson"),
        ("txt2img", {"prompt": "a", "override_settings": {"sd_model_checkpoint": "x"}}, 404, "x"),
        ("img2img", {"prompt": "a"}, 422, "init_images"),
        ("img2img", {"prompt": "a", "init_images": ["bm8="]}, 422, "image"),
        ("options", {"sd_model_checkpoint": "missing"}, 404, "missing"),
        ("png-info", {"image": "bm8="}, 422, "image"),
        ("nothing", {}, 404, "no route"),
    ],
)
def test_errors_have_a1111s_form(
    front_alone: Front, path: str, body: dict[str, Any], status: int, detail: str
) -> None:
    answer = front_alone.client.post(f"/sdapi/v1/{path}", json=body)
    assert answer.status_code == status, answer.text
    error = answer.get_json()
    assert set(error) == {"error", "detail", "body", "errors"}
    assert detail in json.dumps(error["detail"])


@pytest.fixture
def front_alone(new_front: Any, tmp_path: Path) -> Front:
    front: Front = new_front(waiting_slots=1, wait_seconds=0.1)
    return front


def test_second_passes_weights_and_clip_skip_are_handed_on(front_alone: Front) -> None:
    body = {
        "prompt": "(a boat:1.2)",
        "steps": 20,
        "width": 128,
        "height": 128,
        "enable_hr": True,
        "hr_scale": 2,
        "denoising_strength": 0.5,
        "override_settings": {"CLIP_stop_at_last_layers": 2},
    }
    assert front_alone.client.post("/sdapi/v1/txt2img", json=body).status_code == 504
    used = front_alone.store.jobs.page(limit=1)[0].parameters
    assert (used.prompt_syntax, used.clip_skip) == ("weighted", 2)
    assert used.hires is not None
    assert (used.hires.width, used.hires.strength) == (256, 0.5)


def test_the_older_routes(front: ServedFront, draws: None) -> None:
    front.hand.report()
    models = httpx.get(f"{front.url}/api/models").json()
    assert models == {PAPER.id: {"ready": True, "type": "diffusers", "execution_type": "cpu"}}
    answer = httpx.post(f"{front.url}/api/image", json={"prompt": "a boat"}, timeout=60)
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == png()
