"""A person with JavaScript switched off: from the form to a picture, on a phone and on a desk."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Literal

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from rockiln.domain.job import JobState
from rockiln.store.records import Job, Lease, Picture
from support.front import ServedFront

SIZES = {"phone": (390, 844), "desk": (1440, 900)}


@pytest.fixture(params=SIZES)
def page(browser: Browser, served: ServedFront, request: pytest.FixtureRequest) -> Iterator[Page]:
    width, height = SIZES[request.param]
    scheme: Literal["light", "dark"] = "light" if request.param == "desk" else "dark"
    context = browser.new_context(
        java_script_enabled=False,
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        base_url=served.url,
    )
    opened = context.new_page()
    asked: list[str] = []
    opened.on("request", lambda sent: asked.append(sent.url))
    yield opened
    context.close()
    assert all(url.startswith(served.url) for url in asked), asked


def draw(served: ServedFront, leased: tuple[Lease, Job]) -> None:
    """Publishes a real picture, which a browser can show."""
    lease, job = leased
    data = io.BytesIO()
    Image.new("RGB", (job.parameters.width, job.parameters.height), "teal").save(data, "png")
    digest = served.store.artefacts.put_picture(data.getvalue(), "png")
    served.store.jobs.record_latents(lease, 0, "latents")
    served.store.jobs.record_decode_started(lease, 0)
    served.store.jobs.publish(
        lease,
        0,
        Picture(
            index=0, state=JobState.PUBLISHED, step=4, latents=None, digest=digest,
            size_bytes=len(data.getvalue()), details={}, warnings=(), seconds={"decode": 0.1},
        ),
    )  # fmt: skip


def test_from_the_form_to_the_picture_and_back(page: Page, served: ServedFront) -> None:
    page.goto("/")
    page.get_by_label("Prompt", exact=True).fill("a lighthouse")
    page.get_by_label("Seed").fill("12")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("a lighthouse")
    expect(page.get_by_text("This page renews itself")).to_be_visible()
    draw(served, served.hand.lease())
    picture = page.get_by_role("img", name="Picture 1: a lighthouse")
    expect(picture).to_be_visible(timeout=30_000)  # the page has renewed itself
    assert picture.bounding_box()
    page.get_by_role("link", name="Again with these settings").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a lighthouse")
    expect(page.get_by_label("Seed")).to_have_value("12")


def test_a_mistake_is_shown_beside_its_field(page: Page, served: ServedFront) -> None:
    page.goto("/ui/")
    page.get_by_label("Prompt", exact=True).fill("   ")
    page.get_by_label("Steps").fill("3")
    page.get_by_role("button", name="Generate").click()
    field = page.get_by_label("Prompt", exact=True)
    expect(field).to_have_accessible_description("It is blank: say what to draw.")
    expect(page.get_by_label("Steps")).to_have_value("3")


@pytest.mark.parametrize("path", ["/ui/", "/docs", "/problems/queue-full", "/ui/none-such"])
def test_no_page_is_wider_than_the_window(page: Page, served: ServedFront, path: str) -> None:
    page.goto(path)
    assert page.viewport_size is not None
    content_px = page.evaluate("document.documentElement.scrollWidth")  # works without JavaScript
    assert content_px <= page.viewport_size["width"]


def test_the_form_is_filled_and_sent_by_keyboard(page: Page, served: ServedFront) -> None:
    page.goto("/ui/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_label("Prompt", exact=True).focus()
    page.keyboard.type("a village")
    for _ in range(10):
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Generate")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Cancel the job")).to_be_visible()
    page.get_by_role("button", name="Cancel the job").press("Enter")
    expect(page.get_by_text("It was cancelled before it was done.")).to_be_visible()
