"""The life of a job in the engine: what is reported, in which order, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import Plan
from rockiln.engine.engine import Engine
from rockiln.engine.latents_file import read_latents
from rockiln.engine.picture_file import read_record
from rockiln.engine.record import parameters_of
from rockiln.worker import protocol
from support.engine_harness import EngineHarness, largest_difference, read_profile
from support.parameters import parameters
from support.tiny_sd1 import make_tiny_sd1

pytestmark = pytest.mark.slow

UNLIKE: tuple[dict[str, Any], ...] = (
    {"scheduler": "euler_ancestral", "num_inference_steps": 7, "guidance_scale": 9.0, "seed": 5},
    {"scheduler": "ddim", "num_inference_steps": 3, "guidance_scale": 1.0, "prompt": "snow"},
    {"scheduler": "unipc", "num_inference_steps": 5, "negative_prompt": ""},
    {"scheduler": "dpmpp_2m_karras", "num_inference_steps": 4, "num_images": 2},
)


def policies_of(picture: protocol.PictureEncoded) -> object:
    return picture.details["policies"]


def test_events_come_in_the_order_of_a_jobs_life(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    harness.run(parameters(num_inference_steps=2), tiny)
    assert harness.names() == [
        "denoise_started",
        "step_done",
        "step_done",
        "latents_stored",
        "decode_started",
        "encode_started",
        "picture_encoded",
        "job_ended",
    ]
    steps = [(event.step, event.steps) for event in harness.of(protocol.StepDone)]
    assert steps == [(1, 2), (2, 2)]
    assert harness.of(protocol.JobEnded)[0].outcome == "encoded"


def test_latents_are_on_disk_when_they_are_reported(
    harness: EngineHarness, tiny: ModelProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(event: protocol.Progress) -> None:
        if isinstance(event, protocol.LatentsStored):
            seen.append(read_latents(harness.artefacts.latents_path(event.latents)).latents.shape)
        if isinstance(event, protocol.DecodeStarted):
            assert seen

    monkeypatch.setattr(harness.engine, "_send", look)
    harness.submit(parameters(width=96), tiny)
    harness.finish()
    assert seen == [(1, 4, 8, 12)]


def test_picture_is_delivered_before_the_next_one_is_begun(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    harness.run(parameters(num_images=2, num_inference_steps=1), tiny)
    in_order = [getattr(event, "index", None) for event in harness.events]
    assert in_order == [None] + [0] * 5 + [1] * 5 + [None]


def test_unlike_rows_share_a_batch_and_stay_within_one_step_of_solo(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    solo = {
        (n, picture.index): harness.pixels(picture)
        for n, changes in enumerate(UNLIKE)
        for picture in harness.run(parameters(**changes), tiny)
    }
    harness.events.clear()
    for n, changes in enumerate(UNLIKE):
        wanted = parameters(**changes)
        chosen = harness.plan(wanted, tiny, max_batch_rows=8)
        harness.submit(wanted, tiny, job_id=str(n), chosen=chosen)
    pictures = harness.finish()
    assert len(pictures) == len(solo) == 5
    for picture in pictures:
        assert picture.details["batch_rows"] == 5
        expected = solo[int(picture.job_id), picture.index]
        assert largest_difference(harness.pixels(picture), expected) <= 1


def test_rows_join_and_leave_at_step_boundaries(harness: EngineHarness, tiny: ModelProfile) -> None:
    def submit(job_id: str, steps: int) -> None:
        wanted = parameters(num_inference_steps=steps, scheduler="euler")
        harness.submit(
            wanted, tiny, job_id=job_id, chosen=harness.plan(wanted, tiny, max_batch_rows=2)
        )

    submit("a", 4)
    harness.engine.advance()
    submit("b", 2)
    submit("c", 3)
    harness.finish()
    steps = [f"{event.job_id}{event.step}" for event in harness.of(protocol.StepDone)]
    # b joins a's second step; c has no place before b is done; a leaves, c goes on alone.
    assert steps == ["a1", "a2", "b1", "a3", "b2", "a4", "c1", "c2", "c3"]
    rows = {event.job_id: event.details["batch_rows"] for event in harness.encoded()}
    assert rows == {"a": 2, "b": 2, "c": 2}


def test_row_of_another_shape_is_not_starved(harness: EngineHarness, tiny: ModelProfile) -> None:
    for job_id, width in (("a", 64), ("wide", 96), ("b", 64)):
        wanted = parameters(width=width, num_inference_steps=2)
        chosen = harness.plan(wanted, tiny, max_batch_rows=2)
        harness.submit(wanted, tiny, job_id=job_id, chosen=chosen)
    harness.finish()
    assert [event.job_id for event in harness.encoded()] == ["a", "b", "wide"]


def test_cancelled_job_leaves_and_the_other_goes_on(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    (alone,) = harness.run(parameters(), tiny)
    harness.events.clear()
    harness.submit(parameters(num_inference_steps=6, num_images=2), tiny, job_id="a")
    harness.submit(parameters(), tiny, job_id="b")
    harness.engine.advance()
    harness.engine.cancel("a")
    (picture,) = harness.finish()
    assert harness.names("a") == ["denoise_started", "step_done", "job_ended"]
    assert picture.job_id == "b"
    assert picture.digest == alone.digest


def test_job_can_be_cancelled_between_latents_and_decode(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    harness.submit(parameters(num_inference_steps=1), tiny)
    harness.engine.advance()
    harness.engine.cancel("job")
    assert harness.names() == ["denoise_started", "step_done", "latents_stored", "job_ended"]
    assert harness.of(protocol.JobEnded)[0].outcome == "cancelled"
    assert harness.engine.idle


def test_warm_up_decodes_and_hands_over_nothing(harness: EngineHarness, tiny: ModelProfile) -> None:
    harness.run(parameters(num_inference_steps=1), tiny, purpose="warm_up")
    assert harness.names() == [
        "denoise_started", "step_done", "latents_stored", "decode_started", "job_ended",
    ]  # fmt: skip
    assert harness.of(protocol.JobEnded)[0].outcome == "encoded"


def test_cancel_of_an_ended_job_says_nothing(harness: EngineHarness, tiny: ModelProfile) -> None:
    harness.run(parameters(), tiny)
    said = len(harness.events)
    harness.engine.cancel("job")
    assert len(harness.events) == said


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
def test_resume_from_latents_gives_the_same_bytes(
    harness: EngineHarness, tiny: ModelProfile, picture_format: str
) -> None:
    wanted = parameters(format=picture_format, num_images=2, scheduler="euler_ancestral")
    first = harness.run(wanted, tiny)
    latents = [event.latents for event in harness.of(protocol.LatentsStored)]
    tasks = [protocol.PictureTask(index=n, latents=name) for n, name in enumerate(latents)]
    again = harness.run(wanted, tiny, pictures=tasks)
    assert [event.digest for event in again] == [event.digest for event in first]
    assert "step_done" not in harness.names()


def test_resume_denoises_again_when_the_latents_are_gone_or_torn(
    harness: EngineHarness, tiny: ModelProfile, capfd: pytest.CaptureFixture[str]
) -> None:
    (first,) = harness.run(parameters(), tiny)
    path = harness.artefacts.latents_path("job/0.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    for name in ("job/0.safetensors", "job/7.safetensors"):
        task = protocol.PictureTask(index=0, latents=name)
        (again,) = harness.run(parameters(), tiny, pictures=[task])
        assert again.digest == first.digest
        assert "denoising again" in capfd.readouterr().err


def test_resume_denoises_again_when_the_model_is_another(
    harness: EngineHarness, tiny: ModelProfile, tmp_path: Path
) -> None:
    (picture,) = harness.run(parameters(), tiny)
    other = read_profile(make_tiny_sd1(tmp_path / "tiny", seed=1))
    task = protocol.PictureTask(index=0, latents="job/0.safetensors")
    (again,) = harness.run(parameters(), other, pictures=[task])
    assert "step_done" in harness.names()
    assert again.digest != picture.digest


def test_repeat_from_the_record_gives_the_same_bytes(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    wanted = parameters(num_images=2, scheduler="euler_ancestral", prompt="a boat, 船\n“é”")
    for picture in harness.run(wanted, tiny):
        data = harness.data(picture)
        record = read_record(data)
        assert record == picture.details
        (again,) = harness.run(parameters_of(record), tiny, chosen=Plan.from_dict(record["plan"]))
        assert harness.data(again) == data


def test_record_says_what_was_used(harness: EngineHarness, tiny: ModelProfile) -> None:
    (picture,) = harness.run(parameters(seed=3), tiny)
    details: Any = picture.details
    assert details["policies"] == ["channels_last", "sdpa_attention"]
    assert details["parameters"]["seed"] == 3
    assert details["parameters"]["num_images"] == 1
    assert (details["dtype"], details["threads"], details["batch_rows"]) == ("float32", 1, 1)
    assert len(details["model"]["revision"]) == 64
    assert set(picture.seconds) == {
        "load",
        "encode_prompt",
        "prepare_latents",
        "denoise",
        "store_latents",
        "decode",
        "postprocess",
    }


def test_large_picture_is_decoded_in_tiles_and_says_so(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    wanted = parameters(width=128, height=128, num_inference_steps=1)
    (whole,) = harness.run(wanted, tiny)
    (tiled,) = harness.run(wanted, tiny, chosen=harness.plan(wanted, tiny, vae_tile_px=64))
    (again,) = harness.run(wanted, tiny)
    assert [policies_of(picture) for picture in (whole, tiled, again)] == [
        ["channels_last", "sdpa_attention"],
        ["channels_last", "sdpa_attention", "vae_tiling"],
        ["channels_last", "sdpa_attention"],
    ]
    assert again.digest == whole.digest != tiled.digest


def test_warning_names_the_text_that_is_not_read(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    wanted = parameters(prompt="a " * 75 + "red boat", negative_prompt="snow " * 76)
    (picture,) = harness.run(wanted, tiny)
    assert picture.warnings == [
        "The prompt is 2 tokens longer than the 75 this model reads; not read: “red boat”",
        "The negative prompt is 1 tokens longer than the 75 this model reads; not read: “snow”",
    ]


def test_no_warning_about_a_negative_prompt_that_guidance_does_not_use(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    wanted = parameters(guidance_scale=1.0, negative_prompt="snow " * 76)
    (picture,) = harness.run(wanted, tiny)
    assert picture.warnings == []


def test_engine_with_nothing_to_do_does_nothing(harness: EngineHarness) -> None:
    assert isinstance(harness.engine, Engine)
    harness.engine.advance()
    assert harness.events == []
