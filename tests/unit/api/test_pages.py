"""The pages: forms that need no JavaScript."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from werkzeug.test import TestResponse

from rockiln.api.views.web.form import form_content, typed_of
from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.ladder import RungKey, Rungs
from rockiln.registry.revision import signature_of
from support.front import Front
from support.paper_model import PAPER

FORM = {"prompt": "a <boat>", "width": "64", "seed": "7", "guidance_scale": "4.5", "model": "paper"}


def send(front: Front, form: dict[str, str], **more: Any) -> TestResponse:
    answer: TestResponse = front.send_form("/ui/generate", form, **more)
    return answer


def test_the_root_leads_to_the_pages(front: Front) -> None:
    assert front.client.get("/").headers["Location"] == "/ui/"
    assert front.client.get("/ui").status_code in {301, 308}


def test_a_sent_form_leads_to_its_job(front: Front) -> None:
    answer = send(front, FORM)
    assert answer.status_code == 303
    page = front.client.get(answer.headers["Location"])
    assert '<meta http-equiv="refresh"' in page.text
    assert "a &lt;boat&gt;" in page.text
    assert "<boat>" not in page.text
    parameters = front.store.jobs.page(limit=1)[0].parameters
    assert (parameters.width, parameters.seed, parameters.guidance_scale) == (64, 7, 4.5)
    assert parameters.height == 64


def test_errors_stand_beside_their_fields_with_what_was_typed(front: Front) -> None:
    answer = send(front, {**FORM, "prompt": "", "width": "7", "num_inference_steps": "many"})
    assert answer.status_code == 400
    for field in ("prompt", "width", "num_inference_steps"):
        assert f'aria-describedby="{field}-error"' in answer.text
        assert f'id="{field}-error"' in answer.text
    assert 'value="7"' in answer.text
    assert 'value="many"' in answer.text
    assert front.store.jobs.page(limit=1) == []


def test_a_full_queue_is_told_on_the_form(new_front: Callable[..., Front]) -> None:
    front = new_front(queue_max_jobs=1)
    front.submit()
    answer = send(front, FORM)
    assert answer.status_code == 429
    assert "Too many jobs wait" in answer.text
    assert "a &lt;boat&gt;" in answer.text


def test_a_finished_job_shows_its_pictures_and_stops_renewing(front: Front) -> None:
    job_id = front.submit(num_images=2)
    front.hand.finish(front.hand.lease(), warnings=("the prompt is long",))
    page = front.client.get(f"/ui/jobs/{job_id}").text
    assert 'http-equiv="refresh"' not in page
    assert page.count('<img src="/jobs/') == 2
    assert "the prompt is long" in page
    assert f"again={job_id}" in page
    assert f"/jobs/{job_id}/artefacts/0" in front.client.get("/ui/").text


def test_a_job_can_be_sent_again_with_its_settings(front: Front) -> None:
    job_id = front.submit(prompt="a lighthouse", seed=99)
    page = front.client.get(f"/ui/?again={job_id}").text
    assert "a lighthouse</textarea>" in page
    assert 'value="99"' in page


def test_a_failed_job_says_why_and_what_to_do(front: Front) -> None:
    job_id = front.submit()
    front.hand.fail(front.hand.lease(), Fault(FaultCode.BROKEN_MODEL, "the weights are torn"))
    page = front.client.get(f"/ui/jobs/{job_id}").text
    assert "The weights are torn" in page
    assert "/problems/broken-model" in page


def test_a_job_is_cancelled_from_its_page(front: Front) -> None:
    job_id = front.submit()
    for _ in range(2):  # the second time it has ended: no error, its page tells
        answer = front.send_form(f"/ui/jobs/{job_id}/cancel")
        assert answer.status_code == 303
    assert "cancelled" in front.client.get(answer.headers["Location"]).text


def test_errors_of_the_pages_are_pages(front: Front) -> None:
    for path in ("/ui/none-such", "/ui/jobs/none-such", "/ui/?again=none-such"):
        answer = front.client.get(path)
        assert (answer.status_code, answer.mimetype) == (404, "text/html")
        assert "To the form" in answer.text


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "application/json"])
def test_a_form_of_another_type_is_refused(front: Front, content_type: str) -> None:
    answer = front.client.post("/ui/generate", data="prompt=a", content_type=content_type)
    assert answer.status_code == 415


def test_the_form_without_a_model_says_so(front: Front) -> None:
    front.services.catalogue.models.clear()
    assert "no model is installed" in front.client.get("/ui/").text
    assert send(front, {"prompt": "a boat"}).status_code == 404


def test_pages_ask_nobody_else_for_anything(front: Front) -> None:
    job_id = front.submit()
    for path in ("/ui/", f"/ui/jobs/{job_id}", "/docs", "/problems/queue-full"):
        page = front.client.get(path).text
        sources = re.findall(r'(?:src|href|action)="([^"]*)"', page)
        assert sources
        assert all(source.startswith(("/", "#")) for source in sources), sources
        assert page.count("<script") == page.count("<script src=")
        assert not re.search(r"<style|\sstyle=|\son\w+=", page)


def test_every_field_has_a_label(front: Front) -> None:
    page = front.client.get("/ui/").text
    fields = set(re.findall(r'<(?:input|textarea|select)[^>]* id="(\w+)"', page))
    assert fields == set(re.findall(r'<label for="(\w+)"', page))
    assert fields >= {"prompt", "negative_prompt", "model", "scheduler", "seed", "image", "mask"}


def test_form_text_becomes_the_json_it_stands_for() -> None:
    typed = {"prompt": "a\r\nb", "negative_prompt": " ", "width": " 64 ", "guidance_scale": "x"}
    assert form_content(typed) == {"prompt": "a\nb", "width": 64, "guidance_scale": "x"}
    assert form_content({"seed": "9" * 9999})["seed"] == "9" * 9999


def test_a_request_comes_back_as_it_was_typed() -> None:
    typed = {"prompt": "a", "seed": "7", "guidance_scale": "4.5", "hires_width": "128"}
    said = form_content(typed)
    assert said["hires"] == {"width": 128}
    assert typed_of(said) == typed
    assert typed_of({"guidance_scale": 2.3456789, "strength": 1.0}) == {
        "guidance_scale": "2.3456789", "strength": "1",
    }  # fmt: skip
    assert typed_of({"prompt": ["no text"], "hires": 1, "loras": [1], "seed": True}) == {}


def test_what_htmx_asked_for_and_was_refused_takes_the_place_of_the_page(front: Front) -> None:
    by_htmx = {"HX-Request": "true"}
    for answer in (
        front.client.get(f"/ui/jobs/{'0' * 32}/live", headers=by_htmx),
        front.send_form(f"/ui/jobs/{'0' * 32}/repeat", headers=by_htmx),
    ):  # fmt: skip
        assert answer.status_code == 404
        assert answer.headers["HX-Retarget"] == answer.headers["HX-Reselect"] == "#main"
        assert 'id="main"' in answer.text


def test_htmx_gets_the_job_in_hand_or_the_form_with_its_mistakes(front: Front) -> None:
    answer = send(front, FORM, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert answer.text.lstrip().startswith('<article id="live"')
    answer = send(front, {**FORM, "width": "7"}, headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["HX-Retarget"]) == (400, "#form")
    assert 'aria-describedby="width-error"' in answer.text


def test_the_form_of_a_model_keeps_what_was_typed(front: Front) -> None:
    page = front.client.get("/ui/form?model=paper&prompt=a+boat&steps=3&seed=9").text
    assert "a boat</textarea>" in page
    assert 'value="9"' in page


def test_sizes_that_no_device_here_can_make_are_not_offered(front: Front) -> None:
    front.hand.report()
    assert 'value="96x96"' in front.client.get("/ui/").text
    worker = front.store.workers.all()[0]
    assert worker.device is not None
    small = replace(worker, device={**worker.device, "total_bytes": 1})
    front.store.workers.report(small)
    for size in re.findall(r'name="size" value="(\d+)x(\d+)"', front.client.get("/ui/").text):
        answer = send(front, {**FORM, "width": size[0], "height": size[1]})
        assert answer.status_code == 422


def test_a_gallery_place_that_is_none_is_refused(front: Front) -> None:
    for before in ("x", "0", "9" * 30):
        assert front.client.get(f"/ui/gallery?before={before}").status_code == 400


def test_remembered_ways_of_working_are_told_in_words(front: Front) -> None:
    for revision, kind in (("0" * 64, "bfloat16"), (signature_of(PAPER), "float16")):
        key = RungKey(revision, "512x768", 2, kind, "a card", "7.2/2.9.1").text
        front.store.rungs.record_success(
            key, Rungs(), step_seconds=0.5, decode_seconds=None, peak_bytes=None
        )
    front.store.rungs.record_success(
        "of an older version", Rungs(), step_seconds=None, decode_seconds=None, peak_bytes=None
    )
    page = front.client.get("/ui/system").text
    assert PAPER.title in page
    assert "768, 2 pictures" in page
    assert "a card, float16, 7.2 / 2.9.1" in page
    assert "files 00000000, not here as they were" in page
    assert "of an older version" in page
    assert "0" * 64 not in page
