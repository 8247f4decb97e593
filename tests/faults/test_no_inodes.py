"""R12: no inode is left though there is space: accepting stops, nothing is lost, it goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.fault_bench import FaultBench
from support.service import eventually

INODES = 3000


class Inodes:
    """The inodes of one file system, taken and given back."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: list[Path] = []

    def take_all(self) -> None:
        for number in range(os.statvfs(self._root).f_favail):
            path = self._root / f"filler{number}"
            path.touch()
            self._held.append(path)

    def give_back(self) -> None:
        for path in self._held:
            path.unlink()
        self._held.clear()


@pytest.fixture
def inodes(tmp_path: Path) -> Iterator[Inodes]:
    """The data folder on a file system of its own; gone before the bench's supervisors are."""
    root = tmp_path / "data"
    root.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=64m,nr_inodes={INODES}", "tmpfs", str(root)],
        check=True,
    )
    yield Inodes(root)
    subprocess.run(["umount", "--lazy", str(root)], check=True)


def test_without_inodes_jobs_wait_and_nothing_is_accepted(
    inodes: Inodes, bench: FaultBench
) -> None:
    bench.start(min_free_disk_bytes=0)
    with bench.api() as api:
        before = bench.ended(bench.submit())
        bench.proven_after(0.0)
        eventually(lambda: httpx.get(f"{api.url}/readyz").is_success, "it is ready")
        inodes.take_all()
        jobs = [bench.submit() for _ in range(3)]
        eventually(
            lambda: all(bench.store.attempts.of(job.id) for job in jobs), "each job was tried"
        )
        assert {each.code for job in jobs for each in bench.store.attempts.of(job.id)} == {
            "storage_full"
        }
        refused = httpx.post(f"{api.url}/generate", json={"prompt": "a boat"})
        assert (refused.status_code, refused.json()["free_inodes"]) == (503, 0)
        assert refused.json()["type"].endswith("storage-low")
        ready = httpx.get(f"{api.url}/readyz")
        assert ready.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert "0 free inodes" in ready.json()["detail"]
        assert httpx.get(f"{api.url}/livez").status_code == httpx.codes.OK
        assert {bench.state(job) for job in jobs}.isdisjoint({"failed", "quarantined", "done"})
        inodes.give_back()
        done = [bench.ended(job, seconds=60) for job in jobs]
        assert {job.state for job in [before, *done]} == {"done"}
        answer = httpx.post(
            f"{api.url}/generate", json={"prompt": "a boat"}, headers={"Prefer": "respond-async"}
        )
        assert answer.status_code == httpx.codes.ACCEPTED
