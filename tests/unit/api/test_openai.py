"""The OpenAI dialect with OpenAI's own Python client, against a real gunicorn."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from rockiln.domain.fault import Fault, FaultCode
from rockiln.store.records import Job, Lease
from support.front import Front, ServedFront
from support.paper_model import PAPER
from support.service import eventually

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedFront]:
    with ServedFront(tmp_path_factory.mktemp("openai"), waiting_slots=2) as served:
        yield served


@pytest.fixture
def client(front: ServedFront) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{front.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_pictures_come_as_bytes(front: ServedFront, client: openai.OpenAI) -> None:
    with front.hand.working():
        answer = client.images.generate(
            prompt="a boat", model=PAPER.id, n=2, size="128x128", output_format="webp"
        )
    (job,) = front.store.jobs.page(limit=1)
    assert (job.parameters.width, job.parameters.num_images) == (128, 2)
    assert [base64.b64decode(each.b64_json or "") for each in answer.data or []] == [
        f"webp {job.id} {index}".encode() for index in (0, 1)
    ]
    assert (answer.size, answer.output_format) == ("128x128", "webp")
    assert answer.created == int(job.accepted_at)


def test_pictures_come_as_addresses(front: ServedFront, client: openai.OpenAI) -> None:
    with front.hand.working():
        raw = client.images.with_raw_response.generate(prompt="a boat", response_format="url")
    answer = raw.parse()
    url = (answer.data or [])[0].url
    assert url is not None
    job_id = raw.headers["Rockiln-Job-Id"]
    assert httpx.get(url).content == f"png {job_id} 0".encode()
    assert front.store.jobs.get(job_id).parameters.format == "png"


def test_what_others_add_is_understood(front: ServedFront, client: openai.OpenAI) -> None:
    with front.hand.working():
        client.images.generate(
            prompt="a boat",
            quality="high",
            user="someone",
            extra_body={
                "negative_prompt": "fog",
                "rng_seed": 7,
                "steps": 5,
                "cfg_scale": 3.5,
                "scheduler": "Euler a",
            },
        )
    parameters = front.store.jobs.page(limit=1)[0].parameters
    assert (parameters.negative_prompt, parameters.seed) == ("fog", 7)
    assert (parameters.num_inference_steps, parameters.guidance_scale) == (5, 3.5)
    assert parameters.scheduler == "euler_ancestral"


@pytest.mark.parametrize(("quality", "share"), [("low", 0.5), ("auto", 1), ("hd", 1.5)])
def test_quality_is_a_share_of_the_models_own_steps(
    front: ServedFront, client: openai.OpenAI, quality: Any, share: float
) -> None:
    with front.hand.working():
        client.images.generate(prompt="a boat", quality=quality)
    parameters = front.store.jobs.page(limit=1)[0].parameters
    assert parameters.num_inference_steps == round(PAPER.defaults.num_inference_steps * share)


def test_a_stream_shows_previews_then_each_picture(
    front: ServedFront, client: openai.OpenAI
) -> None:
    def draw(leased: tuple[Lease, Job]) -> None:
        lease, job = leased
        preview = front.store.artefacts.preview_path(job.id, 0)
        preview.parent.mkdir(parents=True)
        for step in range(1, 9):
            front.store.jobs.record_step(lease, 0, step)
            preview.write_bytes(f"preview {step}".encode())
            front.hand.tell_preview(leased, 0, step)
        front.hand.finish(leased)

    with front.hand.working(draw):
        stream = client.images.generate(
            prompt="a boat",
            stream=True,
            partial_images=2,
            extra_body={"num_inference_steps": 9},
        )
        events: list[Any] = list(stream)
    (job,) = front.store.jobs.page(limit=1)
    *partial, last = events
    assert [event.type for event in partial] == ["image_generation.partial_image"] * 2
    assert [event.partial_image_index for event in partial] == [0, 1]
    assert all(base64.b64decode(event.b64_json).startswith(b"preview ") for event in partial)
    assert last.type == "image_generation.completed"
    assert base64.b64decode(last.b64_json) == f"png {job.id} 0".encode()
    assert last.usage.total_tokens == 0


def test_a_stream_of_a_job_that_fails_raises(front: ServedFront, client: openai.OpenAI) -> None:
    fault = Fault(FaultCode.BAD_OUTPUT, "the picture is black")
    with front.hand.working(lambda leased: front.hand.fail(leased, fault)):
        stream = client.images.generate(prompt="a boat", stream=True)
        with pytest.raises(openai.APIError, match="the picture is black"):
            list(stream)


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [PAPER.id]
    assert client.models.retrieve(PAPER.id).object == "model"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("missing")
    assert caught.value.code == "model_not_found"


def test_refusals_are_what_the_client_expects(front: ServedFront, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.images.generate(prompt="a boat", size="100x128")
    assert (bad.value.param, bad.value.code) == ("size", "invalid_value")
    assert bad.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as many:
        client.images.generate(prompt="a boat", n=11)
    assert many.value.param == "n"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.images.generate(prompt="a boat", model="dall-e-3")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as transparent:
        client.images.generate(prompt="a boat", background="transparent")
    assert transparent.value.param == "background"
    assert front.store.jobs.page(limit=1)[0].parameters.prompt == "a boat"


def test_a_job_that_fails_for_good_is_not_tried_again(front: ServedFront) -> None:
    """The client repeats a 5xx twice unless it is told not to."""
    fault = Fault(FaultCode.BAD_OUTPUT, "the picture is black")
    before = len(front.store.jobs.page(limit=100))
    with (
        front.hand.working(lambda leased: front.hand.fail(leased, fault)),
        openai.OpenAI(base_url=f"{front.url}/v1", api_key="any", max_retries=2) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.images.generate(prompt="a boat")
    assert caught.value.code == "bad_output"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(front.store.jobs.page(limit=100)) == before + 1


def test_too_many_waiting_calls_are_told_when_to_come_back(new_front: Any) -> None:
    front: Front = new_front(waiting_slots=0)
    answer = front.client.post("/v1/images/generations", json={"prompt": "a boat"})
    assert answer.status_code == 429
    assert answer.get_json()["error"]["type"] == "rate_limit_error"
    assert answer.headers["x-should-retry"] == "true"
    assert int(answer.headers["Retry-After"]) > 0
    assert front.store.jobs.page(limit=1) == []


def test_a_call_that_waits_too_long_is_told_where_its_job_is(new_front: Any) -> None:
    front: Front = new_front(wait_seconds=0.1)
    answer = front.client.post("/v1/images/generations", json={"prompt": "a boat"})
    assert answer.status_code == 504
    (job,) = front.store.jobs.page(limit=1)
    assert answer.get_json()["error"]["job_id"] == job.id
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/v1/nothing", {}, 404),
        ("GET", "/v1/images/generations", {}, 405),
        ("POST", "/v1/images/generations", {"data": "x", "content_type": "text/plain"}, 415),
        ("POST", "/v1/images/generations", {"data": "{", "content_type": "application/json"}, 400),
        ("POST", "/v1/images/generations", {"json": {"prompt": "x" * 70_000}}, 413),
        ("POST", "/v1/images/generations", {"json": {"prompt": "a", "size": "9x9"}}, 400),
    ],
)
def test_every_error_has_the_envelope(
    new_front: Any, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    client = new_front(max_body_bytes=1 << 16).client
    answer = client.open(path, method=method, **options)
    assert answer.status_code == status, answer.text
    error = answer.get_json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert answer.headers["x-should-retry"] == "false"
    assert status != 405 or answer.headers["Allow"] == "OPTIONS, POST"


def test_one_job_is_seen_and_cancelled_from_another_dialect(
    front: ServedFront, client: openai.OpenAI
) -> None:
    stream = client.images.generate(prompt="one of all", stream=True)
    (job,) = front.store.jobs.page(limit=1)
    assert httpx.get(f"{front.url}/jobs/{job.id}").json()["parameters"]["prompt"] == "one of all"
    assert httpx.delete(f"{front.url}/jobs/{job.id}").status_code == 200
    with pytest.raises(openai.APIError, match="cancelled"):
        list(stream)


def png(mode: str = "RGB", color: Any = 0) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (128, 128), color).save(file, "PNG")
    return file.getvalue()


def test_edits_and_variations_start_from_their_pictures(
    front: ServedFront, client: openai.OpenAI
) -> None:
    transparent = png("RGBA", (0, 0, 0, 0))
    with front.hand.working():
        for image in (png(), [png()]):
            client.images.edit(image=image, prompt="a boat", extra_body={"strength": 0.5})
            edited = front.store.jobs.page(limit=1)[0].parameters
            assert (edited.image is not None, edited.mask, edited.strength) == (True, None, 0.5)
        client.images.edit(image=png(), mask=transparent, prompt="a boat")
        assert front.store.jobs.page(limit=1)[0].parameters.mask is not None
        with pytest.deprecated_call():  # by OpenAI; others still serve it
            client.images.create_variation(image=png(), n=2)
    varied = front.store.jobs.page(limit=1)[0].parameters
    assert (varied.image is not None, varied.num_images) == (True, 2)
    with pytest.raises(openai.BadRequestError) as masked:
        client.images.edit(image=png(), mask=png(), prompt="a boat")
    assert masked.value.param == "mask"
    assert "transparency" in masked.value.message
    with pytest.raises(openai.BadRequestError) as torn:
        client.images.edit(image=b"no picture", prompt="a boat")
    assert torn.value.param == "image"


def test_a_client_that_asked_takes_its_job_with_it(
    front: ServedFront, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.images.generate(
            prompt="soon gone",
            timeout=0.5,
            extra_headers={"Prefer": "cancel-on-disconnect"},
        )
    (job,) = front.store.jobs.page(limit=1)
    eventually(lambda: front.store.jobs.get(job.id).state == "cancelled", "it is cancelled")
