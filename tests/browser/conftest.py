"""The distribution's Chromium, on an api that is really served."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from rockiln.domain.errors import UnknownJobError
from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.job import WAITING_STATES
from rockiln.store.records import Job, Lease
from rockiln.store.store import Store
from support.front import ServedFront
from support.hand_worker import HandWorker
from support.painter import draw

Scheme = Literal["light", "dark"]
DESK, PHONE = (1440, 900), (390, 844)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path is not None, "chromium is missing; next: apt-get install chromium"
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="session")
def one_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedFront]:
    with ServedFront(tmp_path_factory.mktemp("served")) as front:
        yield front


class Hand:
    """Does a worker's work for one test, and leaves nothing open."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._worker = HandWorker(store)
        self._taken: list[tuple[Lease, Job]] = []

    def take(self, *, step: int = 0) -> tuple[Lease, Job]:
        """The next job, with ``step`` steps done."""
        leased = self._worker.lease()
        self._taken.append(leased)
        if step:
            self.step(leased, step)
        return leased

    def step(self, leased: tuple[Lease, Job], step: int) -> None:
        self.store.jobs.record_step(leased[0], 0, step)
        self.store.wake("api")

    def draw(self, leased: tuple[Lease, Job] | None = None, *, data: bytes | None = None) -> None:
        draw(self.store, leased or self.take(), data=data)

    def fail(self) -> None:
        self._worker.fail(self.take(), Fault(FaultCode.BROKEN_MODEL, "the weights are torn"))

    def report(self) -> None:
        self._worker.report()

    def clear(self) -> None:
        for job in self.store.jobs.page(limit=100, states=tuple(WAITING_STATES)):
            self.store.jobs.cancel(job.id)
        for lease, job in self._taken:
            with suppress(UnknownJobError):  # the test deleted it
                if not self.store.jobs.get(job.id).ended:
                    self.store.jobs.record_cancelled(lease)


@pytest.fixture
def served(one_service: ServedFront) -> ServedFront:
    return one_service


@pytest.fixture
def hand(served: ServedFront) -> Iterator[Hand]:
    acting = Hand(served.store)
    acting.report()
    yield acting
    acting.clear()


@pytest.fixture
def send(served: ServedFront) -> Callable[..., str]:
    """Sends a request as a program does; returns the job's id."""

    def sent(**body: Any) -> str:
        answer = httpx.post(
            f"{served.url}/generate",
            json={"prompt": "a boat", **body},
            headers={"Prefer": "respond-async"},
        )
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    return sent


def _is_fault(said: ConsoleMessage) -> bool:
    # The browser complains of every 4xx, which is an answer like others.
    return said.type == "error" and "responded with a status of 4" not in said.text


@contextmanager
def open_page(
    browser: Browser,
    served: ServedFront,
    size: tuple[int, int] = DESK,
    scheme: Scheme = "light",
    *,
    complaints_expected: bool = False,
    **more: Any,
) -> Iterator[Page]:
    """A page of a new visitor. It may ask nobody but the service, nor break its own policy."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        base_url=served.url,
        **more,
    )
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if _is_fault(said) else None)
    yield page
    context.close()
    assert all(url.startswith(served.url) for url in asked), asked
    assert complaints_expected or not complaints, complaints


@pytest.fixture
def page(browser: Browser, served: ServedFront, hand: Hand) -> Iterator[Page]:
    with open_page(browser, served) as opened:
        yield opened
