"""Asking for a picture with all that the page can do."""

from __future__ import annotations

import io
import json
import re
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

from browser.conftest import PHONE, Hand, open_page
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from support.front import ServedFront
from support.painter import painted


def ask(page: Page, prompt: str = "a lighthouse") -> None:
    page.goto("/ui/")
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("article")).to_contain_text(prompt)


def test_progress_and_picture_come_without_leaving_the_page(page: Page, hand: Hand) -> None:
    ask(page)
    expect(page.get_by_role("article")).to_contain_text("Number 1 in the queue")
    leased = hand.take(step=1)
    expect(page.get_by_label("Steps: 1 of 4")).to_be_visible()
    hand.step(leased, 3)
    expect(page.get_by_role("progressbar")).to_have_attribute("value", "3")
    hand.draw(leased)
    expect(page.get_by_role("img", name="Picture 1: a lighthouse")).to_be_visible()
    expect(page.get_by_role("article")).not_to_have_attribute("hx-trigger", re.compile("every"))
    assert page.url.endswith("/ui/")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a lighthouse")


def test_a_job_is_told_of_without_a_stream(page: Page, hand: Hand) -> None:
    page.route("**/jobs/*/events", lambda route: route.fulfill(status=204))
    ask(page, "a quiet harbour")
    hand.draw()
    expect(page.get_by_role("img", name="Picture 1: a quiet harbour")).to_be_visible()


def test_a_preview_is_shown_while_it_is_drawn(page: Page) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 16), "orange").save(file, "jpeg")
    told = {"payload": {"index": 0, "step": 1}, "preview": b64encode(file.getvalue()).decode()}
    body = f"id: 1\nevent: preview\ndata: {json.dumps(told)}\n\n"
    page.route(
        "**/jobs/*/events",
        lambda route: route.fulfill(content_type="text/event-stream", body=body),
    )
    ask(page)
    expect(page.get_by_role("img", name="What can be seen")).to_have_attribute("width", "32")
    expect(page.get_by_role("img", name="What can be seen")).to_be_visible()


def test_the_state_is_said_once_to_a_screen_reader(page: Page, hand: Hand) -> None:
    ask(page)
    said = page.locator("#said")
    expect(said).to_have_text("The job is accepted.")
    hand.draw()
    expect(said).to_have_text("The job is done.")


def test_the_picture_is_downloaded(page: Page, hand: Hand) -> None:
    ask(page)
    hand.draw()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.endswith("-0.png")
    assert download.value.path().read_bytes() == painted(64, 64)


def test_a_job_is_cancelled_where_it_is_shown(page: Page) -> None:
    ask(page)
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.get_by_text("It was cancelled before it was done.")).to_be_visible()
    assert page.url.endswith("/ui/")


def test_a_failure_says_what_to_do(page: Page, hand: Hand) -> None:
    ask(page)
    hand.fail()
    expect(page.get_by_role("article")).to_contain_text("Repair or replace the model")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_a_mistake_is_shown_in_place(page: Page) -> None:
    page.goto("/ui/")
    page.get_by_label("Prompt", exact=True).fill("   ")
    page.get_by_label("Seed").fill("5")
    page.get_by_role("button", name="Generate").click()
    field = page.get_by_label("Prompt", exact=True)
    expect(field).to_have_accessible_description("It is blank: say what to draw.")
    expect(page.get_by_label("Seed")).to_have_value("5")
    field.fill("a boat")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("article")).to_contain_text("a boat")


def test_a_preset_is_the_size_of_the_job(page: Page, hand: Hand) -> None:
    page.goto("/ui/")
    page.get_by_label("Prompt", exact=True).fill("a tall tower")
    page.get_by_label(re.compile("^Tall")).check(force=True)
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("article")).to_be_visible()
    _, job = hand.take()
    assert job.parameters.height > job.parameters.width


def test_sides_are_asked_for_only_with_a_custom_size(page: Page) -> None:
    page.goto("/ui/")
    width = page.get_by_label("Width, px", exact=True)
    expect(width).to_be_hidden()
    page.get_by_label("Custom").check(force=True)
    expect(width).to_be_visible()


def test_a_fixed_seed_becomes_random_again(page: Page) -> None:
    page.goto("/ui/")
    page.get_by_label("Seed").fill("12")
    page.get_by_role("button", name="Random").click()
    expect(page.get_by_label("Seed")).to_have_value("")


def test_the_form_is_sent_from_the_prompt(page: Page) -> None:
    page.goto("/ui/")
    page.get_by_label("Prompt", exact=True).fill("a quick boat")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("article")).to_contain_text("a quick boat")


def test_again_brings_the_settings_and_vary_another_seed(
    page: Page, hand: Hand, send: Callable[..., str]
) -> None:
    job_id = send(prompt="a windmill", seed=12)
    hand.draw()
    page.goto(f"/ui/jobs/{job_id}")
    page.get_by_role("link", name="Again with these settings").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a windmill")
    expect(page.get_by_label("Seed")).to_have_value("12")
    page.goto(f"/ui/jobs/{job_id}")
    page.get_by_role("button", name="Vary").click()
    expect(page.get_by_role("button", name="Cancel the job")).to_be_visible()
    _, job = hand.take()
    assert job.parameters.prompt == "a windmill"
    assert job.parameters.seed != 12


def test_a_mask_is_painted_over_a_picture(page: Page, hand: Hand, tmp_path: Path) -> None:
    file = tmp_path / "start.png"
    file.write_bytes(painted(128, 64))
    page.goto("/ui/")
    page.get_by_label("Prompt", exact=True).fill("a boat on it")
    page.get_by_text("Start from a picture").click()
    page.get_by_label("Picture PNG, JPEG or WebP").set_input_files(file)
    canvas = page.locator("#painting")
    expect(canvas).to_be_visible()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 80, box["y"] + 30, steps=4)
    page.mouse.up()
    expect(page.get_by_label("Mask")).to_have_value(re.compile(r"mask\.png$"))
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("article")).to_be_visible()
    _, job = hand.take()
    assert (job.parameters.width, job.parameters.height) == (128, 64)
    assert job.parameters.image is not None
    assert job.parameters.mask is not None


def test_a_lora_is_put_into_the_prompt(page: Page, served: ServedFront) -> None:
    folder = served.models_dir / "loras"
    folder.mkdir()
    (folder / "ink.safetensors").write_bytes(b"")
    page.goto("/ui/")
    page.get_by_label("Prompt", exact=True).fill("a boat")
    page.get_by_text("More settings").click()
    page.get_by_label("LoRA added to the prompt").select_option("ink")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a boat <lora:ink:0.8>")


def test_a_service_that_is_away_is_told_and_comes_back(
    browser: Browser, served: ServedFront, hand: Hand
) -> None:
    with open_page(browser, served, complaints_expected=True) as page:
        ask(page)
        page.route("**/live*", lambda route: route.abort())
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        page.unroute("**/live*")
        expect(page.get_by_role("alert")).to_be_hidden()


def test_the_result_is_brought_into_view_on_a_phone(
    browser: Browser, served: ServedFront, hand: Hand
) -> None:
    with open_page(browser, served, PHONE, "dark") as page:
        ask(page)
        expect(page.get_by_role("article")).to_be_in_viewport()


def test_the_open_job_is_shown_when_the_page_is_opened_anew(page: Page) -> None:
    ask(page, "a long wait")
    page.reload()
    expect(page.get_by_role("article")).to_contain_text("a long wait")
