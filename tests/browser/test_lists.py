"""Queue, gallery, models and system."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from browser.conftest import Hand, open_page
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, Page, expect

from support.front import ServedFront

INFOTEXT = (
    "a (red:1.2) barn\nNegative prompt: people\n"
    "Steps: 9, Sampler: Euler a, CFG scale: 3.5, Seed: 99, Size: 128x64"
)
GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 5, "steps": 8, "cfg": 2.5, "sampler_name": "euler", "scheduler": "karras",
            "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 96}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a glass bridge"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "fog"}},
}  # fmt: skip


def picture_with(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (16, 16)).save(path, "png", pnginfo=info)
    return path


def restore(page: Page, file: Path) -> None:
    page.goto("/ui/gallery")
    page.get_by_label("Restore settings from a PNG").set_input_files(file)
    page.get_by_role("button", name="Restore", exact=True).click()


def test_the_queue_follows_what_happens(page: Page, hand: Hand, send: Callable[..., str]) -> None:
    send(prompt="a first one")
    send(prompt="a second one")
    page.goto("/ui/queue")
    leased = hand.take(step=2)
    running = page.get_by_role("listitem").filter(has_text="a first one").first
    expect(running).to_contain_text("denoising")
    waiting = page.get_by_role("listitem").filter(has_text="a second one").first
    expect(waiting).to_contain_text("Number 1")
    hand.draw(leased)
    expect(running.get_by_text("denoising")).to_be_hidden()


def test_a_job_is_cancelled_from_the_queue(page: Page, send: Callable[..., str]) -> None:
    send(prompt="a boat nobody wants")
    page.goto("/ui/queue")
    page.get_by_role("button", name="Cancel a boat nobody wants").click()
    expect(page.get_by_role("button", name="Cancel a boat nobody wants")).to_be_hidden()
    expect(page.get_by_role("button", name="Retry a boat nobody wants")).to_be_visible()


def test_a_failed_job_is_retried_from_the_queue(
    page: Page, hand: Hand, send: Callable[..., str]
) -> None:
    send(prompt="a torn castle", seed=31)
    hand.fail()
    page.goto("/ui/queue")
    page.get_by_role("button", name="Retry a torn castle").first.click()
    expect(page.get_by_role("button", name="Cancel the job")).to_be_visible()
    _, job = hand.take()
    assert (job.parameters.prompt, job.parameters.seed) == ("a torn castle", 31)


@pytest.mark.parametrize("words", ["Owl", "seed:4711", "owl 128x64", "SEED:4711 paper"])
def test_pictures_are_found(page: Page, hand: Hand, send: Callable[..., str], words: str) -> None:
    send(prompt="a snowy owl", seed=4711, width=128, height=64)
    hand.draw()
    send(prompt="a plain field")
    hand.draw()
    page.goto("/ui/gallery")
    page.get_by_label("Search", exact=True).fill(words)
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("main").get_by_role("listitem").first).to_contain_text("a snowy owl")
    expect(page.get_by_text("a plain field")).to_have_count(0)


def test_the_gallery_has_pages(page: Page, hand: Hand, send: Callable[..., str]) -> None:
    for number in range(26):
        send(prompt=f"sheet {number}")
        hand.draw()
    page.goto("/ui/gallery?q=sheet")
    expect(page.get_by_role("main").get_by_role("listitem")).to_have_count(24)
    page.get_by_role("link", name="Older pictures").click()
    expect(page.get_by_role("link", name="sheet 0", exact=True)).to_be_visible()
    page.get_by_role("link", name="Newest").click()
    expect(page.get_by_role("link", name="sheet 25", exact=True)).to_be_visible()


def test_a_picture_is_taken_up_again(page: Page, hand: Hand, send: Callable[..., str]) -> None:
    send(prompt="a copper kettle", seed=8)
    hand.draw()
    page.goto("/ui/gallery?q=copper")
    page.get_by_role("link", name="Again with the settings of a copper kettle").first.click()
    expect(page.get_by_label("Seed")).to_have_value("8")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"parameters": INFOTEXT}, {"Prompt": "a (red:1.2) barn", "Steps": "9", "Seed": "99"}),
        ({"prompt": json.dumps(GRAPH)}, {"Prompt": "a glass bridge", "Steps": "8", "Seed": "5"}),
        (
            {"rockiln": json.dumps({"parameters": {"prompt": "a kiln", "seed": 3}})},
            {"Prompt": "a kiln", "Seed": "3"},
        ),
    ],
    ids=["A1111", "ComfyUI", "rockiln"],
)
def test_a_file_brings_its_settings(
    page: Page, tmp_path: Path, texts: dict[str, str], expected: dict[str, str]
) -> None:
    restore(page, picture_with(tmp_path / "a.png", **texts))
    expect(page.get_by_text("Settings taken from the file")).to_be_visible()
    for label, value in expected.items():
        expect(page.get_by_label(label, exact=True)).to_have_value(value)


def test_a_dropped_file_is_read(page: Page, tmp_path: Path) -> None:
    data = picture_with(tmp_path / "a.png", parameters=INFOTEXT).read_bytes()
    page.goto("/ui/gallery")
    transfer = page.evaluate_handle(
        """text => {
            const files = new DataTransfer();
            const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
            files.items.add(new File([bytes], "a.png", {type: "image/png"}));
            return files;
        }""",
        base64.b64encode(data).decode("ascii"),
    )
    page.dispatch_event("form.restore", "drop", {"dataTransfer": transfer})
    expect(page.get_by_label("Seed")).to_have_value("99")


@pytest.mark.parametrize(
    "case",
    [(b"GIF89a", "It is no PNG"), (b"\x89PNG\r\n\x1a\n\xff\xff", "It is cut off")],
    ids=["other", "cut"],
)
def test_a_file_that_is_none_is_told(page: Page, tmp_path: Path, case: tuple[bytes, str]) -> None:
    data, words = case
    file = tmp_path / "a.png"
    file.write_bytes(data)
    restore(page, file)
    expect(page.get_by_role("alert")).to_contain_text(words)


def test_a_model_is_chosen_from_its_page(page: Page) -> None:
    page.goto("/ui/models")
    expect(page.get_by_role("main")).to_contain_text("A model on paper")
    page.get_by_role("link", name="Use A model on paper").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("paper")


def test_a_model_is_asked_for_and_cancelled(page: Page) -> None:
    page.goto("/ui/models")
    absent = page.get_by_role("listitem").filter(has=page.get_by_text("downloadable", exact=True))
    name = absent.first.get_by_role("heading").inner_text()
    page.get_by_role("button", name=f"Download {name}", exact=True).click()
    row = page.get_by_role("listitem").filter(
        has=page.get_by_role("heading", name=name, exact=True)
    )
    expect(row.get_by_text("downloading", exact=True)).to_be_visible()
    expect(row).to_contain_text("waits for the fetcher")
    row.get_by_role("button", name="Cancel").click()
    expect(row.get_by_text("downloadable", exact=True)).to_be_visible()


def test_a_licence_is_accepted_before_its_model_is_asked_for(page: Page) -> None:
    page.goto("/ui/models")
    gated = page.get_by_role("listitem").filter(has=page.get_by_text("gated", exact=True)).first
    gated.get_by_role("button", name="Download").click()
    accepted = gated.get_by_role("checkbox", name="I have read the licence")
    assert accepted.evaluate("field => field.validity.valueMissing")
    expect(gated.get_by_text("gated", exact=True)).to_be_visible()


def test_the_system_is_told_and_its_report_copied(
    browser: Browser, served: ServedFront, hand: Hand
) -> None:
    allowed = ["clipboard-read", "clipboard-write"]
    with open_page(browser, served, permissions=allowed) as page:
        page.goto("/ui/system")
        expect(page.get_by_role("region", name="Workers")).to_contain_text("cpu0")
        page.get_by_role("button", name="Copy report").click()
        expect(page.get_by_text("Copied.")).to_be_visible()
        report = json.loads(page.evaluate("navigator.clipboard.readText()"))
        assert report["versions"]["rockiln"]


def test_the_report_is_a_file(page: Page) -> None:
    page.goto("/ui/system")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download report").click()
    assert download.value.suggested_filename == "rockiln-report.json"


def test_the_order_is_changed_in_place_by_keyboard(page: Page, send: Callable[..., str]) -> None:
    for name in ("first", "second", "third"):
        send(prompt=f"a {name} ship")
    page.goto("/ui/queue")
    ships = page.get_by_role("main").get_by_role("link", name=re.compile("a .* ship"))
    expect(ships).to_have_text(["a first ship", "a second ship", "a third ship"])
    up = page.get_by_role("button", name="Up a third ship")
    up.focus()
    page.keyboard.press("Enter")
    expect(ships).to_have_text(["a first ship", "a third ship", "a second ship"])
    expect(page.locator("#said")).to_have_text("It is number 2 now.")
    expect(up).to_be_focused()
    page.keyboard.press("Enter")
    expect(ships).to_have_text(["a third ship", "a first ship", "a second ship"])
    expect(up).to_have_attribute("aria-disabled", "true")
    expect(up).to_be_focused()  # also at the end of the line
    page.get_by_role("button", name="First a second ship").press("Enter")
    expect(ships).to_have_text(["a second ship", "a third ship", "a first ship"])


def test_a_picture_is_deleted_for_good_when_asked_twice(
    page: Page, hand: Hand, send: Callable[..., str]
) -> None:
    for name in ("kept", "unwanted"):
        send(prompt=f"a {name} vase")
        hand.draw()
    page.goto("/ui/gallery?q=vase")
    for_good = page.get_by_role("button", name="Delete for good with all of a unwanted vase")
    expect(for_good).to_be_hidden()
    page.get_by_text("Delete a unwanted vase").click()
    for_good.click()
    expect(page.get_by_role("main").get_by_role("listitem")).to_have_count(1)
    expect(page.get_by_label("Search", exact=True)).to_have_value("vase")
    page.get_by_role("link", name="a kept vase").first.click()
    page.get_by_text("Delete a kept vase").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Gallery")
    page.goto("/ui/gallery?q=vase")
    expect(page.get_by_text("No picture is found")).to_be_visible()
