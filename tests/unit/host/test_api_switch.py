"""Who stays when a new api stands beside an old one, wherever a run before ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.rockiln.host.plugins.module_utils._api_switch import (
    Proxy,
    decide,
    digest_in,
    generation_in,
    leaving_pids,
    settle,
    worker_pids,
)
from ansible_collections.rockiln.host.plugins.module_utils._engine import (
    Completed,
    Engine,
    EngineError,
)

OLD, NEW = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
LISTING = (
    "1 nginx: master process /usr/sbin/nginx\n"
    "7 nginx: worker process is shutting down\n"
    "9 nginx: worker process\n"
    "12 bash\n"
)


@pytest.mark.parametrize(
    ("current", "following", "named", "decision"),
    [
        (OLD, None, OLD, "nothing"),
        (None, None, "", "nothing"),
        (OLD, NEW, NEW, "replace"),  # the proxy already sends requests to the new one
        (OLD, NEW, OLD, "remove_next"),  # killed before the proxy heard of it
        ("", NEW, NEW, "replace"),  # the old one is of a version without generations
        (None, NEW, NEW, "replace"),  # killed between removing the old and renaming the new
        (None, NEW, OLD, "replace"),
    ],
)
def test_the_one_that_the_proxy_names_stays(
    current: str | None, following: str | None, named: str, decision: str
) -> None:
    assert decide(current=current, following=following, named=named) == decision


def test_a_configuration_says_its_digest_and_its_api() -> None:
    text = f'default http://rockiln-api-{NEW}:8080;\nadd_header X-Rockiln-Config "{OLD}";\n'
    assert (digest_in(text), generation_in(text)) == (OLD, NEW)
    assert digest_in(f"HTTP/1.1 204 No Content\nX-Rockiln-Config: {OLD}\n") == OLD
    assert (digest_in("HTTP/1.1 204 No Content"), generation_in("proxy_pass http://x;")) == ("", "")


def test_workers_that_finish_are_told_from_those_that_accept() -> None:
    assert worker_pids(LISTING) == {7, 9}
    assert leaving_pids(LISTING) == {7}


class RecordingEngine:
    """Answers of a client program, and what it was asked."""

    def __init__(self, *, absent: Sequence[str] = (), refuses: str = "") -> None:
        self.asked: list[list[str]] = []
        self.absent, self.refuses = absent, refuses

    def __call__(self, arguments: Sequence[str]) -> Completed:
        words = list(arguments)[1:]
        self.asked.append(words)
        if words[0] == "container" and words[-1] in self.absent:
            return Completed(code=1, output="", errors="Error: No such container: x")
        if self.refuses and self.refuses in words:
            return Completed(code=1, output="", errors="emerg: unknown directive")
        return Completed(code=0, output="", errors="")

    @property
    def changes(self) -> list[str]:
        return [" ".join(words) for words in self.asked if words[0] != "container"]


@pytest.mark.parametrize(
    ("absent", "changes"),
    [
        ((), ["stop --time 30 api", "rm api", "rename next api"]),
        (("api",), ["rename next api"]),
    ],
)
def test_the_old_one_stops_before_its_name_is_taken(
    absent: Sequence[str], changes: list[str]
) -> None:
    run = RecordingEngine(absent=absent)
    settle(Engine("docker", run), "replace", current="api", following="next", stop_seconds=30)
    assert run.changes == changes


def test_a_configuration_that_nginx_refuses_is_not_loaded(tmp_path: Path) -> None:
    config = tmp_path / "nginx.conf"
    config.write_text(f'add_header X-Rockiln-Config "{NEW}";')
    run = RecordingEngine(refuses="-t")
    with pytest.raises(EngineError, match="nginx refuses"):
        Proxy(Engine("docker", run), "proxy", config).reload(seconds=1)
    assert not any("reload" in words for words in run.asked)


def test_old_requests_that_do_not_end_are_an_error_and_not_a_cut(tmp_path: Path) -> None:
    config = tmp_path / "nginx.conf"
    config.write_text(f'add_header X-Rockiln-Config "{NEW}";')
    clock = iter(range(100))

    def run(arguments: Sequence[str]) -> Completed:
        line = arguments[-1]
        page = f"X-Rockiln-Config: {NEW}\n" if "__proxy" in line else LISTING
        return Completed(code=0, output=page, errors="")

    proxy = Proxy(
        Engine("docker", run), "proxy", config, monotonic=lambda: next(clock), sleep=lambda _: None
    )
    with pytest.raises(EngineError, match="have not ended"):
        proxy.reload(seconds=5)
