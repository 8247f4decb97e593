"""What holds of every page: found without fault by axe, no wider than its window, one heading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from browser.conftest import DESK, PHONE, Hand, Scheme, open_page
from playwright.sync_api import Browser, Page, expect

from support.front import ServedFront

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
VIEWS: dict[str, tuple[tuple[int, int], Scheme]] = {
    "desk": (DESK, "light"),
    "phone at night": (PHONE, "dark"),
}
PAGES = {
    "generate": "/ui/", "queue": "/ui/queue", "gallery": "/ui/gallery", "models": "/ui/models",
    "system": "/ui/system", "docs": "/docs", "problem": "/problems/queue-full",
    "done": "/ui/jobs/{done}", "failed": "/ui/jobs/{failed}", "running": "/ui/jobs/{running}",
    "again": "/ui/?again={done}", "nothing found": "/ui/gallery?q=zebra", "error": "/ui/none-such",
}  # fmt: skip
SERIOUS = {"serious", "critical"}


def serious_faults(page: Page) -> list[tuple[str, str, list[str]]]:
    """What axe finds: rule, words, elements."""
    # As the debugger, whom the policy of the page does not bind.
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [
        (each["id"], each["help"], [node["target"] for node in each["nodes"]])
        for each in found
        if each["impact"] in SERIOUS
    ]


@pytest.fixture
def paths(hand: Hand, send: Callable[..., str]) -> dict[str, str]:
    """Every page with something on it."""
    done = send(prompt="a lighthouse in a storm", width=128, height=64, num_images=2)
    hand.draw()
    failed = send(prompt="a castle")
    hand.fail()
    running = send(prompt="a harbour at dawn")
    hand.take(step=2)
    send(prompt="a teapot, with a prompt that is long enough to be broken on a small screen")
    jobs = {"done": done, "failed": failed, "running": running}
    return {name: path.format(**jobs) for name, path in PAGES.items()}


@pytest.mark.parametrize("view", VIEWS)
def test_every_page(
    browser: Browser, served: ServedFront, paths: dict[str, str], view: str
) -> None:
    size, scheme = VIEWS[view]
    with open_page(browser, served, size, scheme) as page:
        for name, path in paths.items():
            page.goto(path)
            expect(page.locator("h1")).to_have_count(1)
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0], name
            faults = serious_faults(page)
            assert not faults, (name, faults)


def test_the_first_load_is_small(browser: Browser, served: ServedFront, hand: Hand) -> None:
    with open_page(browser, served) as page:
        sizes: dict[str, int] = {}
        page.on("response", lambda got: sizes.update({got.url: len(got.body())}))
        page.goto("/ui/", wait_until="networkidle")
        assert len(sizes) >= 5  # page, style, three scripts
        assert sum(sizes.values()) <= 300_000, sizes
