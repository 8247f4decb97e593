"""Everything by keyboard alone, with the focus always to be seen."""

from __future__ import annotations

import pytest
from browser.conftest import Hand
from playwright.sync_api import Locator, Page, expect

_STOPS_MAX = 60


def tab_to(page: Page, wanted: Locator) -> None:
    """Presses Tab until the element has the focus; each stop on the way must be visible."""
    for _ in range(_STOPS_MAX):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{wanted} is not reached by Tab")


def test_from_the_first_key_to_the_picture(page: Page, hand: Hand) -> None:
    page.goto("/ui/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_label("Prompt", exact=True))
    page.keyboard.type("a village")
    tab_to(page, page.get_by_label("Model's own"))
    page.keyboard.press("ArrowRight")
    tab_to(page, page.get_by_label("Steps", exact=True))
    page.keyboard.type("3")
    tab_to(page, page.get_by_role("button", name="Generate"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("article")).to_contain_text("a village")
    hand.draw()
    again = page.get_by_role("link", name="Again with these settings")
    expect(again).to_be_visible()
    tab_to(page, again)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Steps", exact=True)).to_have_value("3")


def test_the_focus_stays_on_cancel_while_the_page_looks_again(page: Page, hand: Hand) -> None:
    page.goto("/ui/")
    page.get_by_label("Prompt", exact=True).fill("a slow one")
    page.keyboard.press("Control+Enter")
    cancel = page.get_by_role("button", name="Cancel the job")
    expect(cancel).to_be_visible()
    tab_to(page, cancel)
    with page.expect_response("**/live*"):
        hand.take(step=1)
    expect(page.get_by_label("Steps: 1 of 4")).to_be_visible()
    expect(cancel).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("It is being cancelled.")).to_be_visible()


@pytest.mark.parametrize("path", ["/ui/", "/ui/queue", "/ui/gallery", "/ui/models", "/ui/system"])
def test_every_stop_can_be_seen(page: Page, path: str) -> None:
    page.goto(path)
    stops = 0
    for _ in range(_STOPS_MAX):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            """() => {
                const at = document.activeElement;
                if (at === document.body || at === document.documentElement) return null;
                const shown = at.matches(".shape input") ? at.nextElementSibling : at;
                const style = getComputedStyle(shown), box = shown.getBoundingClientRect();
                return [parseFloat(style.outlineWidth), box.width * box.height, at.outerHTML];
            }"""
        )
        if seen is None:
            break
        outline_px, area, html = seen
        assert outline_px >= 2, html
        assert area > 0, html
        stops += 1
    assert stops >= 7
