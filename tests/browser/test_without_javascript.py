"""A person with JavaScript switched off: from the form to a picture, on a phone and on a desk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from browser.conftest import Hand, open_page
from playwright.sync_api import Browser, Page, expect

from support.front import ServedFront

SIZES = {"phone": (390, 844), "desk": (1440, 900)}


@pytest.fixture(params=SIZES)
def page(
    browser: Browser, served: ServedFront, hand: Hand, request: pytest.FixtureRequest
) -> Iterator[Page]:
    scheme: Literal["light", "dark"] = "light" if request.param == "desk" else "dark"
    size = SIZES[request.param]
    with open_page(browser, served, size, scheme, java_script_enabled=False) as opened:
        yield opened


def test_from_the_form_to_the_picture_and_back(page: Page, hand: Hand) -> None:
    page.goto("/")
    page.get_by_label("Prompt", exact=True).fill("a lighthouse")
    page.get_by_label("Seed").fill("12")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("a lighthouse")
    expect(page.get_by_text("This page renews itself")).to_be_visible()
    hand.draw()
    picture = page.get_by_role("img", name="Picture 1: a lighthouse")
    expect(picture).to_be_visible(timeout=30_000)  # the page has renewed itself
    assert picture.bounding_box()
    page.get_by_role("link", name="Again with these settings").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a lighthouse")
    expect(page.get_by_label("Seed")).to_have_value("12")


def test_a_mistake_is_shown_beside_its_field(page: Page) -> None:
    page.goto("/ui/")
    page.get_by_label("Prompt", exact=True).fill("   ")
    page.get_by_label("Steps", exact=True).fill("3")
    page.get_by_role("button", name="Generate").click()
    field = page.get_by_label("Prompt", exact=True)
    expect(field).to_have_accessible_description("It is blank: say what to draw.")
    expect(page.get_by_label("Steps", exact=True)).to_have_value("3")


def test_the_form_is_filled_and_sent_by_keyboard(page: Page) -> None:
    page.goto("/ui/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_label("Prompt", exact=True).focus()
    page.keyboard.type("a village")
    page.get_by_role("button", name="Generate").press("Enter")
    expect(page.get_by_role("button", name="Cancel the job")).to_be_visible()
    page.get_by_role("button", name="Cancel the job").press("Enter")
    expect(page.get_by_text("It was cancelled before it was done.")).to_be_visible()


def test_a_size_is_chosen_or_typed(page: Page, served: ServedFront) -> None:
    page.goto("/ui/")
    page.get_by_label("Prompt", exact=True).fill("a wide village")
    page.get_by_label("Custom").check(force=True)
    page.get_by_label("Width, px", exact=True).fill("128")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("definition").filter(has_text=re.compile("^128 "))).to_be_visible()


def test_a_failed_job_is_sent_again_from_the_queue(
    page: Page, hand: Hand, send: Callable[..., str]
) -> None:
    send(prompt="a castle")
    hand.fail()
    page.goto("/ui/queue")
    failed = page.get_by_role("listitem").filter(has_text="a castle").first
    expect(failed).to_contain_text("Repair or replace the model")
    failed.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("button", name="Cancel the job")).to_be_visible()


def test_the_queue_is_reordered_and_a_job_deleted(page: Page, send: Callable[..., str]) -> None:
    assert page.viewport_size is not None
    width = page.viewport_size["width"]  # the service is the same for both
    first, second = (f"{name} barge of {width}" for name in ("a first", "a second"))
    for name in (first, second):
        send(prompt=name)
    page.goto("/ui/queue")
    barges = page.get_by_role("main").get_by_role("link", name=f"barge of {width}")
    page.get_by_role("button", name=f"First {second}").click()
    expect(barges).to_have_text([second, first])
    page.get_by_role("button", name=f"Down {second}").press("Enter")
    expect(barges).to_have_text([first, second])
    barges.last.click()
    page.get_by_text(f"Delete {second}").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Gallery")
    page.goto("/ui/queue")
    expect(barges).to_have_text([first])
