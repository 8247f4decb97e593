"""ControlNets at the front: judged before anything is queued, in our words and in A1111's."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rockiln.domain.request import ControlNetUse
from rockiln.registry import Catalogue
from rockiln.registry.architecture import unet_facts
from rockiln.registry.controlnet_shapes import controlnet_tensors
from rockiln.settings import Settings
from support.front import Front
from support.paper_controlnet import CONTROLNET, write_paper_controlnet, write_zeros
from support.paper_model import PAPER, write_paper_model


def png(size: tuple[int, int] = (64, 64), colour: str = "white") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


MAP = text(png())


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    settings = Settings(public_dir=tmp_path / "public", data_dir=tmp_path / "data")
    models = settings.own_models_dir
    write_paper_model(models / PAPER.id)
    for name in ("edges", "depth"):
        write_paper_controlnet(models / "controlnets" / name)
    write_paper_controlnet(models / "controlnets" / "wide", cross_attention_dim=64)
    torn = write_paper_controlnet(models / "controlnets" / "torn")
    (torn / "diffusion_pytorch_model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    profile = replace(PAPER, path=str(models / PAPER.id))
    plain = replace(profile, id="plain", features=())
    made = Front(settings, Catalogue({PAPER.id: profile, "plain": plain}))
    yield made
    made.close()


def control(name: str = "edges", **changes: Any) -> dict[str, Any]:
    return {"name": name, "image": MAP, **changes}


def test_a_job_keeps_its_maps_and_can_be_repeated(front: Front) -> None:
    job_id = front.submit(
        controlnets=[control(scale=0.5, end=0.8), control("depth", image=text(png(colour="red")))]
    )
    job = front.store.jobs.get(job_id)
    first, second = job.parameters.controlnets
    assert first == ControlNetUse("edges", first.image, 0.5, 0.0, 0.8)
    assert second == ControlNetUse("depth", second.image, 1.0, 0.0, 1.0)
    assert job.parameters.inputs == (first.image, second.image)
    for digest in job.parameters.inputs:
        assert front.store.artefacts.input_path(digest).is_file()
    front.hand.finish(front.hand.lease())
    again = front.client.post(f"/jobs/{job_id}/retry")
    assert again.status_code == 202, again.text
    repeated = front.store.jobs.get(again.get_json()["id"]).parameters
    assert replace(repeated, seed=job.parameters.seed) == job.parameters
    front.store.artefacts.input_path(second.image).unlink()
    gone = front.client.post(f"/jobs/{job_id}/retry")
    assert gone.status_code == 404
    assert "the picture of depth" in gone.get_json()["detail"]


@pytest.mark.parametrize("form", [False, True])
def test_openais_calls_follow_them_too(front: Front, form: bool) -> None:
    path, asked = "/v1/images/generations", {"controlnets": [control(scale=0.5)]}
    with front.hand.working():
        if form:  # as the SDKs send a picture to start from
            start = (io.BytesIO(png()), "start.png")
            fields = {"prompt": "a", "controlnets": json.dumps(asked["controlnets"])}
            answer = front.client.post("/v1/images/edits", data={**fields, "image": start})
        else:
            body = {"prompt": "a", "hires": {"scale": 1.5}, **asked}
            answer = front.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    (job,) = front.store.jobs.page(limit=1)
    (used,) = job.parameters.controlnets
    assert (used.name, used.scale, job.parameters.hires is None) == ("edges", 0.5, form)
    wrong = front.client.post(path, json={"prompt": "a", "controlnets": [{}]})
    assert wrong.status_code == 400
    assert wrong.get_json()["error"]["param"] == "controlnets.0.name"


def test_the_same_key_and_map_are_the_same_job(front: Front) -> None:
    def send(image: str) -> Any:
        return front.client.post(
            "/generate",
            json={"prompt": "a", "controlnets": [control(image=image)]},
            headers={"Prefer": "respond-async", "Idempotency-Key": "one"},
        )

    assert send(MAP).get_json()["id"] == send(MAP).get_json()["id"]
    assert send(text(png(colour="red"))).status_code == 422


def test_a_file_by_itself_is_one_and_is_read_anew_when_it_changes(front: Front) -> None:
    place = front.services.settings.own_models_dir / "controlnets" / "pose.safetensors"
    write_zeros(place, controlnet_tensors(unet_facts(CONTROLNET), CONTROLNET))

    def listed() -> dict[str, Any]:
        found = front.client.get("/controlnets").get_json()["controlnets"]
        return {each["name"]: each for each in found}

    pose, edges = listed()["pose"], listed()["edges"]
    assert pose == {**edges, "name": "pose"}
    job_id = front.submit(controlnets=[control("pose")])
    assert front.store.jobs.get(job_id).parameters.controlnets[0].name == "pose"
    place.write_bytes(place.read_bytes()[:-1])
    assert "truncated" in listed()["pose"]["reason"]
    place.unlink()
    place.symlink_to("nowhere")
    assert "not a plain file" in listed()["pose"]["reason"]


def test_a_map_gives_the_size(front: Front) -> None:
    job_id = front.submit(controlnets=[control(image=text(png((204, 130))))])
    used = front.store.jobs.get(job_id).parameters
    assert (used.width, used.height, used.strength) == (200, 128, None)


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        ({"controlnets": [control("pose")]}, "controlnets.0.name", "no ControlNet 'pose' on this"),
        ({"controlnets": [control(), control("wide")]}, "controlnets.1.name", "another base"),
        ({"controlnets": [control("torn")]}, "controlnets.0.name", "truncated"),
        ({"controlnets": [control("../edges")]}, "controlnets.0.name", "not of the form"),
        ({"controlnets": [{"name": "edges"}]}, "controlnets.0.image", "missing"),
        ({"controlnets": [control(image="")]}, "controlnets.0.image", "no PNG"),
        ({"controlnets": [control(image="??")]}, "controlnets.0.image", "not base64"),
        ({"controlnets": [control(image=text(b"GIF89a"))]}, "controlnets.0.image", "no PNG"),
        ({"controlnets": [control(image=text(png((9000, 8))))]}, "controlnets.0.image", "8192"),
        ({"controlnets": [control()], "width": 128}, "controlnets.0.image", "128x64: it would be"),
        ({"controlnets": [control(image=text(png((32, 32))))]}, "width", "outside"),
        ({"controlnets": [control(scale=2.1)]}, "controlnets.0.scale", "more than 2.0"),
        ({"controlnets": [control(start=0.5, end=0.5)]}, "controlnets.0.end", "before it begins"),
        ({"controlnets": [control(end=1.1)]}, "controlnets.0.end", "more than 1.0"),
        ({"controlnets": [control(weight=1)]}, "controlnets.0.weight", "no such field"),
        ({"controlnets": [control()] * 4}, "controlnets", "more than 3"),
        ({"controlnets": control()}, "controlnets", "list"),
        ({"controlnets": [control()], "model": "plain"}, "controlnets", "does not take it"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_it_is_queued(
    front: Front, asked: dict[str, Any], field: str, words: str
) -> None:
    answer = front.client.post("/generate", json={"prompt": "a", **asked})
    assert answer.status_code == 400, answer.text
    (error, *_) = answer.get_json()["errors"]
    assert error["field"] == field
    assert words in error["message"]
    assert front.store.jobs.page(limit=1) == []


def test_the_list_says_which_models_each_was_made_for(front: Front) -> None:
    found = {
        each["name"]: each for each in front.client.get("/controlnets").get_json()["controlnets"]
    }
    assert {name: each["state"] for name, each in found.items()} == {
        "depth": "ready", "edges": "ready", "torn": "broken", "wide": "ready",
    }  # fmt: skip
    assert found["edges"]["models"] == ["paper"]
    assert found["wide"]["models"] == []
    assert "truncated" in found["torn"]["reason"]


# A1111's ControlNet extension


def unit(**changes: Any) -> dict[str, Any]:
    return {"model": "edges", "image": MAP, **changes}


def wanted_by(front: Front, *units: Any, route: str = "txt2img", **body: Any) -> Any:
    """The parameters of the one job that comes of such a call."""
    given = {"prompt": "a", "alwayson_scripts": {"ControlNet": {"args": list(units)}}, **body}
    with front.hand.working():
        answer = front.client.post(f"/sdapi/v1/{route}", json=given)
    assert answer.status_code == 200, answer.text
    assert MAP not in json.dumps(answer.get_json()["parameters"])
    (job,) = front.store.jobs.page(limit=1)
    return job.parameters


@pytest.mark.parametrize(
    "units",
    [
        [unit(weight=0.5, guidance_start=0.1, guidance_end=0.9, module="none")],
        [unit(image=None, input_image=MAP, weight=0.5, guidance_start=0.1, guidance_end=0.9)],
        [{"enabled": False, "model": "None", "image": ""},
         unit(model="edges [0123abcd]", image={"image": MAP, "mask": None}, mask="",
              weight=0.5, guidance_start=0.1, guidance_end=0.9, control_mode="Balanced",
              resize_mode="Crop and Resize", pixel_perfect=True, hr_option="Both")],
    ],
)  # fmt: skip
def test_a1111_units_are_followed(front: Front, units: list[Any]) -> None:
    (use,) = wanted_by(front, *units).controlnets
    assert (use.name, use.scale, use.start, use.end) == ("edges", 0.5, 0.1, 0.9)
    assert wanted_by(front).controlnets == ()


def test_a_unit_of_img2img_follows_its_picture(front: Front) -> None:
    used = wanted_by(front, unit(image=None), route="img2img", init_images=[MAP])
    assert used.controlnets[0].image == used.image


@pytest.mark.parametrize(
    ("scripts", "field"),
    [
        ({"controlnet": {"args": [unit(module="canny")]}}, "controlnet.args.0.module"),
        ({"controlnet": {"args": [unit(image=None)]}}, "controlnet.args.0.image"),
        ({"controlnet": {"args": [unit(model="None")]}}, "controlnet.args.0.model"),
        ({"controlnet": {"args": [unit(mask=MAP)]}}, "controlnet.args.0.mask"),
        ({"controlnet": {"args": [unit(control_mode=1)]}}, "controlnet.args.0.control_mode"),
        ({"controlnet": {"args": [unit(hr_option="High res only")]}}, "controlnet.args.0.hr"),
        ({"controlnet": {"args": [unit(weight="x")]}}, "controlnet.args.0.weight"),
        ({"controlnet": {"args": ["x"]}}, "controlnet.args.0"),
        ({"controlnet": []}, "controlnet"),
        ({"adetailer": {"args": [True]}}, "adetailer"),
        ({"controlnet": {"args": [unit(model="pose")]}}, "controlnets.0.name"),
    ],
)
def test_a1111_units_that_cannot_be_done_are_refused(
    front: Front, scripts: dict[str, Any], field: str
) -> None:
    given = {"prompt": "a", "alwayson_scripts": scripts}
    answer = front.client.post("/sdapi/v1/txt2img", json=given)
    assert answer.status_code in {400, 422}, answer.text
    assert field in answer.text
    assert front.store.jobs.page(limit=1) == []


def test_clients_of_the_extension_find_what_they_ask_for(front: Front) -> None:
    get = front.client.get
    assert get("/controlnet/model_list").get_json() == {"model_list": ["depth", "edges", "wide"]}
    assert get("/controlnet/module_list?alias_names=1").get_json()["module_list"] == ["none"]
    assert get("/controlnet/version").get_json() == {"version": 2}
    assert get("/controlnet/settings").get_json() == {"control_net_unit_count": 3}
    assert get("/sdapi/v1/scripts").get_json()["txt2img"] == ["controlnet"]


# The form


def sent(front: Front, **fields: Any) -> Any:
    return front.send_form("/ui/generate", {"prompt": "a", **fields})


def test_the_form_offers_what_fits_and_sends_it(front: Front) -> None:
    page = front.client.get("/ui/").text
    assert "<option >edges</option>" in page
    assert ">wide<" not in page
    files = {"control_image": (io.BytesIO(png()), "map.png")}
    answer = sent(front, control="edges", control_scale="0.5", control_end="0.8", **files)
    assert answer.status_code == 303, answer.text
    (job,) = front.store.jobs.page(limit=1)
    (use,) = job.parameters.controlnets
    assert (use.name, use.scale, use.start, use.end) == ("edges", 0.5, 0.0, 0.8)
    assert "edges, 0.5, from 0.0 to 0.8 of the steps" in front.client.get(f"/ui/jobs/{job.id}").text
    again = front.client.get(f"/ui/?again={job.id}").text
    assert "<option selected>edges</option>" in again
    assert "The map of that job is taken again" in again
    changed = sent(front, control="edges", control_scale="0.9", inputs_from=job.id)
    assert changed.status_code == 303, changed.text
    (last, _) = front.store.jobs.page(limit=2)
    assert last.parameters.controlnets == (replace(use, scale=0.9, end=1.0),)
    without = sent(front, control="", inputs_from=job.id)
    assert without.status_code == 303
    assert front.store.jobs.page(limit=1)[0].parameters.controlnets == ()


def test_several_of_a_job_are_taken_again_as_they_were(front: Front) -> None:
    job_id = front.submit(controlnets=[control(), control("depth", scale=0.3)])
    assert sent(front, control="", inputs_from=job_id).status_code == 303
    first, second = front.store.jobs.page(limit=2)
    assert first.parameters.controlnets == second.parameters.controlnets


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"control": "edges"}, "control_image", "It is missing: choose a file"),
        ({"control": "pose", "control_image": (io.BytesIO(png()), "x")}, "control", "pose"),
        ({"control": "edges", "control_start": "2", "control_image": (io.BytesIO(png()), "x")},
         "control_start", "more than 1.0"),
    ],
)  # fmt: skip
def test_the_form_says_what_is_wrong_where_it_is(
    front: Front, fields: dict[str, Any], field: str, words: str
) -> None:
    answer = sent(front, **fields)
    assert answer.status_code == 400
    (told,) = [line for line in answer.text.splitlines() if f'id="{field}-error"' in line]
    assert words in told
