"""The fetcher as a process: what it publishes, what it refuses, and what kills leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from rockiln.registry import Catalogue, load_catalogue
from rockiln.registry.known_models import known_models
from rockiln.settings import Settings
from rockiln.store.model_tasks import ModelLock, ModelTask
from rockiln.store.store import Store
from support.front import SOURCE
from support.hub import FakeHub
from support.sd15_repository import REPOSITORY, SD15, UNET, weights
from support.service import eventually

pytestmark = pytest.mark.slow


class Running:
    """A fetcher, its store and its hub."""

    def __init__(self, folder: Path, hub: FakeHub, **changes: Any) -> None:
        self.hub = hub
        self.settings = Settings(
            public_dir=folder / "public",
            data_dir=folder / "data",
            hub_endpoint=hub.url,
            hub_backoff_seconds=0.05,
            min_free_disk_bytes=0,
            **changes,
        )
        self.log = folder / "fetcher.log"
        self.store = Store(self.settings)
        self.store.prepare()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rockiln", "fetcher"],
                env={**self.settings.as_environment(), "PYTHONPATH": str(SOURCE), **environment},
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def close(self) -> None:
        self.stop()
        self.store.close()

    def ask(self, kind: Any = "pull", model_id: str = "sd15") -> int:
        return self.store.model_tasks.ask(model_id, kind, owner="anna").seq

    def ended(self, seq: int) -> ModelTask:
        def look() -> ModelTask | None:
            task = self.store.model_tasks.get(seq)
            return task if task is not None and task.ended else None

        return eventually(look, f"task {seq} ends; {self.log.read_text()[-3000:]}", seconds=40)

    def child(self) -> psutil.Process:
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        return eventually(lambda: next(iter(parent.children()), None), "a child")

    @property
    def models(self) -> Path:
        return self.settings.own_models_dir


@pytest.fixture
def fetcher(tmp_path: Path, repository: dict[str, bytes]) -> Iterator[Callable[..., Running]]:
    with ExitStack() as stack:

        def make(held: dict[str, bytes] | None = None, **changes: Any) -> Running:
            name = changes.pop("repository", REPOSITORY)
            files = {name: dict(repository if held is None else held)}
            hub = stack.enter_context(FakeHub(files, commit=SD15.commit or ""))
            running = Running(tmp_path, hub, **changes)
            stack.callback(running.close)
            return running

        yield make


def test_a_pull_publishes_a_checked_model(fetcher: Callable[..., Running]) -> None:
    running = fetcher()
    seq = running.ask()
    running.start()
    task = running.ended(seq)
    assert (task.state, task.detail) == ("done", f"commit {SD15.commit}")
    assert task.bytes_done == task.bytes_total
    profile = load_catalogue([running.models]).models["sd15"]
    assert (profile.title, profile.licence) == (SD15.title, SD15.licence)
    taken = {path.name for path in (running.models / "sd15").rglob("*") if path.is_file()}
    assert not {"v1-5-pruned.ckpt", "pytorch_model.bin", "README.md"} & taken
    lock = running.store.model_tasks.locks()[REPOSITORY]
    assert lock.commit == SD15.commit
    assert set(lock.files) >= {UNET, "model_index.json"}
    checked = running.ended(running.ask("verify"))
    assert checked.state == "done"
    with (running.models / "sd15" / UNET).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0" if running.hub.repositories[REPOSITORY][UNET][-1] else b"\1")
    damaged = running.ended(running.ask("verify"))
    assert (damaged.state, damaged.reason) == ("failed", "broken")
    assert UNET in damaged.detail
    assert load_catalogue([running.models]) == Catalogue()  # it is out of service
    before = len(running.hub.requests)
    repaired = running.ended(running.ask("pull"))
    assert repaired.state == "done"
    fetched = [path for path, _ in running.hub.requests[before:] if "/cdn/" in path]
    assert [path.endswith(UNET) for path in fetched] == [True]  # the rest was sound
    assert running.ended(running.ask("verify")).state == "done"
    assert running.ended(running.ask("remove")).state == "done"
    assert not (running.models / "sd15").exists()
    assert [path.name for path in (running.models / ".downloads").iterdir()] == ["fetcher.lock"]


def test_a_model_in_one_file_is_read_again_and_removed(fetcher: Callable[..., Running]) -> None:
    running = fetcher()
    running.models.mkdir(parents=True, exist_ok=True)
    names = ("mine.safetensors", "mine.rockiln.json", "mine-too.safetensors")
    for name in names:
        (running.models / name).write_bytes(b"x")
    running.start()
    checked = running.ended(running.ask("verify", "mine"))
    assert (checked.state, checked.bytes_done) == ("done", 2)
    assert running.ended(running.ask("remove", "mine")).state == "done"
    assert [name for name in names if (running.models / name).exists()] == [names[2]]


def test_a_file_that_was_fetched_is_held_to_its_digest_and_the_owners_own_is_not(
    fetcher: Callable[..., Running],
) -> None:
    running, lightning = fetcher(), known_models()["sdxl-lightning-4step"]
    running.models.mkdir(parents=True, exist_ok=True)
    paths = [running.models / f"{name}.safetensors" for name in (lightning.id, "sd15")]
    for path in paths:
        path.write_bytes(b"x")
    running.start()
    assert running.ended(running.ask("verify", lightning.id)).state == "done"
    for repository in (lightning.repository or "", REPOSITORY):
        running.store.model_tasks.lock(
            repository, ModelLock("0" * 40, {UNET: "0" * 64}), ruled=True
        )
    fetched = running.ended(running.ask("verify", lightning.id))
    assert (fetched.state, fetched.reason) == ("failed", "broken")
    assert "sdxl_lightning_4step.safetensors has SHA-256" in fetched.detail
    assert running.ended(running.ask("verify", "sd15")).state == "done"
    assert [path.exists() for path in paths] == [False, True]


def test_kills_in_the_middle_lose_no_byte(fetcher: Callable[..., Running]) -> None:
    running = fetcher()
    running.hub.hold[UNET] = 1 << 20
    running.start()
    seq = running.ask()
    running.hub.holding.wait(30)
    part = running.models / ".downloads" / "sd15.parts" / UNET.replace("/", "__")
    eventually(lambda: part.exists() and part.stat().st_size >= 1 << 20, "half of it is there")
    running.child().send_signal(signal.SIGKILL)  # the child alone: the fetcher starts another
    eventually(lambda: len(running.hub.ranges(UNET)) >= 2, "it went on")
    assert running.process is not None
    child = running.child()
    running.process.kill()  # then the fetcher: its child goes with it
    running.process.wait(10)
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running()
    assert not (running.models / "sd15").exists()
    running.hub.released.set()
    running.start()
    assert running.ended(seq).state == "done"
    assert running.hub.ranges(UNET)[0] == ""
    assert all(asked.startswith("bytes=") for asked in running.hub.ranges(UNET)[1:])
    content = (running.models / "sd15" / UNET).read_bytes()
    assert content == running.hub.repositories[REPOSITORY][UNET]


def test_a_child_that_keeps_dying_ends_the_task(
    fetcher: Callable[..., Running], tmp_path: Path
) -> None:
    running = fetcher()
    broken = tmp_path / "broken"
    (broken / "sitecustomize").parent.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import sys, os\nif 'rockiln.fetcher.child' in ' '.join(sys.orig_argv): os.abort()\n"
    )
    seq = running.ask()
    running.start(PYTHONPATH=f"{broken}:{SOURCE}")
    task = running.ended(seq)
    assert (task.state, task.reason) == ("failed", "failed")
    assert "died 3 times" in task.detail


def test_a_cancel_leaves_nothing(fetcher: Callable[..., Running]) -> None:
    running = fetcher()
    running.hub.hold[UNET] = 1000
    running.start()
    seq = running.ask()
    running.hub.holding.wait(30)
    running.store.model_tasks.cancel("sd15")
    running.hub.released.set()
    assert running.ended(seq).state == "cancelled"
    assert not (running.models / ".downloads" / "sd15").exists()
    assert not (running.models / ".downloads" / "sd15.parts").exists()


def test_gated_models_name_the_page_and_the_command(fetcher: Callable[..., Running]) -> None:
    running = fetcher()
    running.hub.gated.add(REPOSITORY)
    running.start()
    task = running.ended(running.ask())
    assert (task.state, task.reason) == ("failed", "gated")
    assert SD15.page in task.detail
    assert "rockiln models pull sd15 --accept-licence" in task.detail
    running.stop()
    running.start(ROCKILN_HUB_TOKEN=running.hub.token)
    assert running.ended(running.ask()).state == "done"
    sign = running.store.model_tasks.fetcher()
    assert sign is not None
    assert sign.has_token
    assert running.hub.token not in running.log.read_text()


def test_the_commit_of_the_first_pull_is_pinned(fetcher: Callable[..., Running]) -> None:
    sd21 = known_models()["sd21"]
    assert sd21.commit is None
    running = fetcher(repository=sd21.repository)
    running.start()
    assert running.ended(running.ask(model_id="sd21")).state == "done"
    lock = running.store.model_tasks.locks()[sd21.repository or ""]
    running.ended(running.ask("remove", "sd21"))
    running.hub.commit = "f" * 40  # upstream moves on, and the pinned commit is gone
    task = running.ended(running.ask(model_id="sd21"))
    assert (task.state, "RevisionNotFound" in task.detail) == ("failed", True)
    running.hub.commit = lock.commit
    running.hub.repositories[sd21.repository or ""][UNET] = weights(4000)
    task = running.ended(running.ask(model_id="sd21"))
    assert (task.state, task.reason) == ("failed", "broken")
    assert "pinned is" in task.detail


def test_one_fetcher_for_one_folder(fetcher: Callable[..., Running]) -> None:
    running = fetcher()
    running.start()
    eventually(running.store.model_tasks.fetcher, "it says that it is there")
    second = subprocess.run(
        [sys.executable, "-m", "rockiln", "fetcher"],
        env={**running.settings.as_environment(), "PYTHONPATH": str(SOURCE)},
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 1
    assert "another fetcher" in second.stdout + second.stderr
