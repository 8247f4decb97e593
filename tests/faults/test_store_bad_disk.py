"""R12: the disk full, read-only or broken at every write point: nothing lost, it goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rockiln.settings import Settings
from rockiln.store.store import Store
from support import store_bad_disk

SCRIPT = str(Path(store_bad_disk.__file__))
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def check(root: Path, acks: Path, jobs: int) -> None:
    """Opens the store as it was left: whole, every promise kept, no job twice."""
    lines = [line.split() for line in acks.read_text().splitlines()]
    accepted = {line[1] for line in lines if line[0] == "accepted"}
    store = Store(Settings(public_dir=root, data_dir=root))
    store.prepare()  # reads the whole database
    held = store.jobs.page(limit=10 * jobs)
    store.close()
    assert {job.id for job in held} == accepted
    assert len(accepted) == jobs
    for job in held:
        assert job.state == "done"
        digest = job.pictures[0].digest
        assert digest is not None
        data = store.artefacts.picture_path(digest, "png").read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest


def test_a_disk_that_fills_up_again_and_again(
    tmp_path: Path, sizes: Callable[[int, int], int], figures: Callable[..., None]
) -> None:
    """On a file system of 12 MiB of its own, in a mount namespace of its own."""
    jobs = sizes(40, 400)
    disk, kept, acks = tmp_path / "disk", tmp_path / "kept", tmp_path / "acks"
    disk.mkdir()
    script = (
        'set -e; mount -t tmpfs -o size=12m,nr_inodes=2000 tmpfs "$1"; '
        'mkdir "$1/data"; shift 2; "$@"; cp -a "$DISK/data" "$KEPT"'
    )
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command += ["bash", "-c", script, "-", str(disk), "--", sys.executable, SCRIPT]
    said = subprocess.run(
        [*command, str(disk / "data"), str(acks), str(jobs), "fill"],
        check=True, capture_output=True, text=True,
        env=ENVIRONMENT | {"DISK": str(disk), "KEPT": str(kept)},
    )  # fmt: skip
    failures = json.loads(said.stdout.splitlines()[-1])
    check(kept, acks, jobs)
    assert not list(kept.glob("artefacts/**/.tmp-*"))
    points = {name.partition(":")[0] for name in failures}
    figures(jobs=jobs, failed_calls=sum(failures.values()), points=len(points), lost=0, corrupt=0)
    assert {"submit", "latents", "put_latents", "publish", "put_picture"} <= points


# Calls, their error, and the first of the distances n: a transaction has up to 30 writes, so that
# of every fifth one none would get through.
CALLS = {
    "full": ("pwrite64,ftruncate,mkdir", "ENOSPC", 31),
    "read_only": ("pwrite64,ftruncate,mkdir,rename,unlink", "EROFS", 31),
    "broken": ("fsync,fdatasync", "EIO", 5),
}


@pytest.mark.parametrize("kind", sorted(CALLS))
def test_calls_that_fail_at_every_point(
    tmp_path: Path, kind: str, sizes: Callable[[int, int], int], figures: Callable[..., None]
) -> None:
    """Every n-th call fails, for several n, so that each write point is met."""
    calls, error, first = CALLS[kind]
    failed, points = 0, set()
    every = range(first, first + 2 * sizes(2, 10), 2)
    jobs = sizes(8, 40)
    for n in every:
        root, acks = tmp_path / f"data{n}", tmp_path / f"acks{n}"
        store = Store(Settings(public_dir=root, data_dir=root))
        store.prepare()
        store.close()
        said = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null",
             "-e", f"inject={calls}:error={error}:when={n}+{n}",
             sys.executable, SCRIPT, str(root), str(acks), str(jobs), "injected"],
            check=True, capture_output=True, text=True, env=ENVIRONMENT,
        )  # fmt: skip
        failures = json.loads(said.stdout.splitlines()[-1])
        failed += sum(failures.values())
        points |= {name.partition(":")[0] for name in failures}
        check(root, acks, jobs)
        shutil.rmtree(root)
    figures(runs=len(every), failed_calls=failed, points=len(points), lost=0, corrupt=0)
    assert "submit" in points or "publish" in points
