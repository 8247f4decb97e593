"""One file from a hub that breaks, lies and redirects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rockiln.domain.errors import BrokenModelError
from rockiln.fetcher.hub import Hub, HubError, HubFile, HubGatedError, HubUnreachableError
from rockiln.fetcher.transfer import Transfer
from support.hub import COMMIT, FakeHub

CONTENT = bytes(range(256)) * 400
REPOSITORY = "owner/name"
PATH = "unet/weights.safetensors"


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with FakeHub({REPOSITORY: {PATH: CONTENT, "small.json": b"{}", "empty.txt": b""}}) as hub:
        yield hub


def hub_of(fake: FakeHub, token: str | None = None) -> Hub:
    return Hub(fake.url, token, stall_seconds=5)


def fetch(fake: FakeHub, folder: Path, path: str = PATH, **options: Path) -> str:
    hub = hub_of(fake)
    file = hub.listing(REPOSITORY, "main").files[path]
    transfer = Transfer(hub, REPOSITORY, COMMIT, backoff_seconds=0)
    return transfer.fetch(file, folder, lambda _: None, **options)


def test_a_file_arrives_whole_and_is_not_fetched_again(fake: FakeHub, tmp_path: Path) -> None:
    digest = fetch(fake, tmp_path / "model")
    assert digest == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "model" / PATH).read_bytes() == CONTENT
    fetch(fake, tmp_path / "model")
    assert fake.ranges(PATH) == [""]


@pytest.mark.parametrize("path", ["small.json", "empty.txt"])
def test_what_git_holds_is_checked_by_gits_digest(fake: FakeHub, tmp_path: Path, path: str) -> None:
    fetch(fake, tmp_path / "model", path)
    assert (tmp_path / "model" / path).read_bytes() == fake.repositories[REPOSITORY][path]
    fake.corrupt.add("small.json")
    with pytest.raises(BrokenModelError, match="git digest"):
        fetch(fake, tmp_path / "other", "small.json")


def test_truncated_bodies_are_followed_by_the_rest(fake: FakeHub, tmp_path: Path) -> None:
    fake.truncate[PATH] = 30_000
    fetch(fake, tmp_path / "model")
    assert (tmp_path / "model" / PATH).read_bytes() == CONTENT
    assert fake.ranges(PATH) == ["", "bytes=30000-", "bytes=60000-", "bytes=90000-"]


def test_a_hub_without_parts_sends_all_again(fake: FakeHub, tmp_path: Path) -> None:
    part = tmp_path / "model.parts" / PATH.replace("/", "__")
    part.parent.mkdir()
    part.write_bytes(CONTENT[:1000])
    fake.refuse_parts = True
    fetch(fake, tmp_path / "model")
    assert (tmp_path / "model" / PATH).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"x" * 100, bytes(len(CONTENT)), CONTENT + b"more"])
def test_a_damaged_part_does_not_pass(fake: FakeHub, tmp_path: Path, left: bytes) -> None:
    part = tmp_path / "model.parts" / PATH.replace("/", "__")
    part.parent.mkdir()
    part.write_bytes(left)
    fetch(fake, tmp_path / "model")
    assert (tmp_path / "model" / PATH).read_bytes() == CONTENT


def test_other_bytes_than_announced_are_refused(fake: FakeHub, tmp_path: Path) -> None:
    fake.corrupt.add(PATH)
    with pytest.raises(BrokenModelError, match="SHA-256"):
        fetch(fake, tmp_path / "model")
    assert not (tmp_path / "model" / PATH).exists()
    assert len(fake.ranges(PATH)) == 2  # once more, from the start, in case it was the line


def test_a_busy_hub_is_asked_again(fake: FakeHub, tmp_path: Path) -> None:
    hub = hub_of(fake)
    file = hub.listing(REPOSITORY, "main").files[PATH]
    fake.busy = 3
    Transfer(hub, REPOSITORY, COMMIT, 0).fetch(file, tmp_path / "model", lambda _: None)
    fake.busy = 100
    with pytest.raises(HubUnreachableError, match="503"):
        Transfer(hub, REPOSITORY, COMMIT, 0).fetch(file, tmp_path / "other", lambda _: None)


def test_a_cached_copy_saves_the_download_only_if_it_is_the_same(
    fake: FakeHub, tmp_path: Path
) -> None:
    cached = tmp_path / "blob"
    cached.write_bytes(CONTENT)
    fetch(fake, tmp_path / "model", cached=cached)
    assert fake.ranges(PATH) == []
    cached.write_bytes(bytes(len(CONTENT)))
    fetch(fake, tmp_path / "other", cached=cached)
    assert (tmp_path / "other" / PATH).read_bytes() == CONTENT


def test_the_token_goes_to_the_hub_alone(fake: FakeHub, tmp_path: Path) -> None:
    fake.gated.add(REPOSITORY)
    with pytest.raises(HubGatedError):
        fetch(fake, tmp_path / "model")
    hub = hub_of(fake, fake.token)
    file = hub.listing(REPOSITORY, "main").files[PATH]
    Transfer(hub, REPOSITORY, COMMIT, 0).fetch(file, tmp_path / "model", lambda _: None)
    to_others = [headers for path, headers in fake.requests if path.startswith("/cdn/")]
    assert to_others
    assert not any("authorization" in headers for headers in to_others)


def test_what_is_not_there_is_no_reason_to_try_again(fake: FakeHub) -> None:
    hub = hub_of(fake)
    with pytest.raises(HubError, match="RepoNotFound"):
        hub.listing("nobody/nothing", "main")
    with pytest.raises(HubError, match="RevisionNotFound"):
        hub.listing(REPOSITORY, "f" * 40)
    with pytest.raises(HubError, match="EntryNotFound"):
        hub.open(REPOSITORY, COMMIT, "none", start=0)


def test_hostile_names_of_a_listing_are_left_out(fake: FakeHub) -> None:
    hostile = ["../up", "/etc/passwd", "a/../../b", "a//b", "a b", "-x", "a/.git/config", ""]
    fake.repositories[REPOSITORY] |= dict.fromkeys(hostile, b"x")
    assert set(hub_of(fake).listing(REPOSITORY, "main").files) == {
        PATH, "small.json", "empty.txt",
    }  # fmt: skip


def test_nobody_at_the_address() -> None:
    hub = Hub("http://127.0.0.1:9", None, stall_seconds=1)
    with pytest.raises(HubUnreachableError, match="does not answer"):
        hub.listing(REPOSITORY, "main")


def test_a_download_can_be_cancelled_between_two_chunks(fake: FakeHub, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(count: int) -> None:
        if count:
            raise StopError

    hub = hub_of(fake)
    file: HubFile = hub.listing(REPOSITORY, "main").files[PATH]
    with pytest.raises(StopError):
        Transfer(hub, REPOSITORY, COMMIT, 0).fetch(file, tmp_path / "model", stop)
