"""Signing in and out by a browser, where the service is published off loopback."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from browser.conftest import DESK, PHONE, open_page
from browser.test_every_page import serious_faults
from playwright.sync_api import Browser, Page, expect

from support.front import ServedFront

TITLE = re.compile("^Sign in")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServedFront, str]]:
    front = ServedFront(tmp_path_factory.mktemp("published"), published_address="192.0.2.1:8000")
    key = front.store.keys.create("the lab", ["generate"])
    with front:
        front.hand.report()
        yield front, key


def sign_in(page: Page, key: str) -> None:
    field = page.get_by_label("Access key")
    expect(field).to_be_focused()
    page.keyboard.type(key)
    page.keyboard.press("Enter")


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_from_the_key_to_a_picture_and_out_again(
    browser: Browser, published: tuple[ServedFront, str], scripts: bool
) -> None:
    front, key = published
    size, scheme = (DESK, "light") if scripts else (PHONE, "dark")
    with open_page(browser, front, size, scheme, java_script_enabled=scripts) as page:  # type: ignore[arg-type]
        page.goto("/ui/queue")
        expect(page).to_have_title(TITLE)
        sign_in(page, "rk_wrong")
        expect(page.get_by_role("alert")).to_contain_text("not known")
        if scripts:
            assert not serious_faults(page)
        sign_in(page, key)
        expect(page.get_by_role("heading", level=1)).to_have_text("Queue")
        page.goto("/ui/")
        page.get_by_label("Prompt", exact=True).fill("a guarded boat")
        page.get_by_role("button", name="Generate").click()
        expect(page.get_by_role("button", name="Cancel the job")).to_be_visible()
        front.hand.finish(front.hand.lease())
        expect(page.get_by_role("link", name="Download")).to_be_visible(timeout=30_000)
        page.get_by_role("button", name="Sign out").click()
        page.goto("/ui/queue")
        expect(page).to_have_title(TITLE)


def test_a_page_that_looks_again_leads_to_sign_in_when_its_session_ended(
    browser: Browser, published: tuple[ServedFront, str]
) -> None:
    front, _ = published
    key = front.store.keys.create("for a while", ["generate"])
    with open_page(browser, front) as page:
        page.goto("/ui/queue")
        sign_in(page, key)
        expect(page.get_by_role("heading", level=1)).to_have_text("Queue")
        front.store.keys.revoke(front.store.keys.all()[-1].id)
        expect(page).to_have_title(TITLE, timeout=30_000)
        assert page.url.endswith("next=/ui/queue")
